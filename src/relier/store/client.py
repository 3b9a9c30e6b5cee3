"""Run operations: a synchronous and an asynchronous client with one set of retry rules.

Every script may run twice with the same arguments, so a call whose reply was lost is simply made
again, until the socket timeout is used up. What redis-py would retry by itself is switched off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from redis import exceptions

from relier.errors import (
    AdmissionRejectedError,
    AdmissionTooLargeError,
    ConfigurationError,
    RedisConnectionError,
    RedisFullError,
    RedisPermissionError,
    UnsupportedServerError,
)
from relier.store.address import Address
from relier.store.keys import Keys
from relier.store.lines import AsyncLines, Lines
from relier.store.operations import Operation
from relier.store.willingness import is_troubled

T = TypeVar("T")

_PAUSE_S = 0.05
OLDEST_SERVER = (7, 0)

_TRANSIENT = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    OSError,
)
_HOPELESS = (exceptions.AuthenticationError, exceptions.AuthorizationError)
_FORBIDDEN_WORDS = ("ACL failure in script", "The user executing the script")
"""How Redis says inside a script what NOPERM says outside."""


class Store:
    """The synchronous client.

    Args:
        address: the server.
        keys: key names.
        timeout_s: socket timeout, and how long a call is tried.
        max_connections: size of the connection pool.
    """

    def __init__(
        self, address: Address, keys: Keys, *, timeout_s: float = 5.0, max_connections: int = 50
    ) -> None:
        self.address = address
        self.keys = keys
        self.timeout_s = timeout_s
        self.redis = address.connect(timeout_s=timeout_s, max_connections=max_connections)
        self._lines = Lines(self.redis.connection_pool, max_connections, timeout_s)

    def run(self, operation: Operation[T]) -> T:
        """Run one operation, again and again until the timeout if its reply is lost.

        Raises:
            RedisConnectionError: the server did not answer in time, or refused us.
            RedisFullError: it is out of memory and refused a write.
        """
        deadline = time.monotonic() + self.timeout_s
        command = operation.command()
        while True:
            try:
                return operation.parse(self._lines.ask(command))
            except exceptions.NoScriptError:
                command = ("EVAL", operation.script.source, *command[2:])
            except exceptions.RedisError as error:
                judge(error, self.address, out_of_time=time.monotonic() > deadline)
                command = operation.command()
                self._shed(error)
                time.sleep(_PAUSE_S)

    def run_all(self, operations: Iterable[Operation[Any]]) -> None:
        """Run operations in order; the next is made while the server works on the last.

        Raises:
            As :meth:`run`; those before the failed one are done.
        """
        connection = self._lines.take()
        under_way: Operation[Any] | None = None
        sound = False
        try:
            for operation in operations:
                self._receive(connection, under_way)
                under_way = operation
                self._transmit(connection, operation)
            self._receive(connection, under_way)
            sound = True
        except (AdmissionRejectedError, AdmissionTooLargeError):
            # An answer as good as any; the next operation was not sent.
            sound = True
            raise
        finally:
            self._lines.give(connection, sound=sound)

    def _transmit(self, connection: Any, operation: Operation[Any]) -> None:
        try:
            connection.send_command(*operation.command())
        except _TRANSIENT:
            # Told by the missing reply: the operation is then run again, which is safe.
            connection.disconnect()

    def _receive(self, connection: Any, operation: Operation[Any] | None) -> None:
        if operation is None:
            return
        try:
            if not connection.is_connected:
                raise exceptions.ConnectionError("the connection was lost")
            operation.parse(connection.read_response())
        except (exceptions.NoScriptError, *_TRANSIENT):
            self.run(operation)
        except exceptions.RedisError as error:
            judge(error, self.address, out_of_time=True)
            raise

    def run_once(self, operation: Operation[T]) -> T:
        """Run one operation that must not be repeated when its reply is lost (``claim``).

        Raises:
            RedisConnectionError: whether it was done is not known.
        """
        try:
            command = operation.command()
            try:
                return operation.parse(self._lines.ask(command))
            except exceptions.NoScriptError:
                command = ("EVAL", operation.script.source, *command[2:])
                return operation.parse(self._lines.ask(command))
        except exceptions.RedisError as error:
            judge(error, self.address, out_of_time=True)
            raise

    def _shed(self, error: Exception) -> None:
        """Drop connections to a server that is no master any more."""
        if isinstance(error, exceptions.ReadOnlyError | exceptions.MasterDownError):
            self._lines.close()

    def hurry(self, timeout_s: float) -> None:
        """Wait no longer than this for any answer from now on: the process is about to end."""
        self.timeout_s = min(self.timeout_s, timeout_s)
        arguments = self.redis.connection_pool.connection_kwargs
        for name in ("socket_timeout", "socket_connect_timeout"):
            arguments[name] = self.timeout_s
        self._lines.close()

    def check_server(self) -> str:
        """Return the server's version text.

        Raises:
            UnsupportedServerError: it is older than Redis 7.
            RedisConnectionError: it does not answer.
        """
        try:
            info = self.redis.info("server")
        except exceptions.RedisError as error:
            judge(error, self.address, out_of_time=True)
            raise
        return supported_version(info)

    def close(self) -> None:
        """Close every connection."""
        self._lines.close()
        self.redis.close()


class AsyncStore:
    """The asynchronous client; it belongs to the event loop it was made in."""

    def __init__(
        self, address: Address, keys: Keys, *, timeout_s: float = 5.0, max_connections: int = 50
    ) -> None:
        self.address = address
        self.keys = keys
        self.timeout_s = timeout_s
        self.redis = address.connect_async(timeout_s=timeout_s, max_connections=max_connections)
        self._lines = AsyncLines(self.redis.connection_pool, max_connections, timeout_s)

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation; raises as :meth:`Store.run` does."""
        deadline = time.monotonic() + self.timeout_s
        command = operation.command()
        while True:
            try:
                return operation.parse(await self._lines.ask(command))
            except exceptions.NoScriptError:
                command = ("EVAL", operation.script.source, *command[2:])
            except exceptions.RedisError as error:
                judge(error, self.address, out_of_time=time.monotonic() > deadline)
                command = operation.command()
                await self._shed(error)
                await asyncio.sleep(_PAUSE_S)

    async def _shed(self, error: Exception) -> None:
        if isinstance(error, exceptions.ReadOnlyError | exceptions.MasterDownError):
            await self._lines.close()

    def drop(self) -> None:
        """Close every connection without an event loop: its own has ended."""
        self._lines.drop()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._lines.close()
        await self.redis.aclose()


def judge(error: Exception, address: Address, *, out_of_time: bool) -> None:
    """Return if a failed call may be made again; else raise what the caller should see."""
    if isinstance(error, exceptions.OutOfMemoryError):
        raise RedisFullError(
            f"Redis at {address.public} is out of memory and refused the write; nothing was "
            "enqueued. Raise maxmemory, or drain the queues."
        ) from error
    if isinstance(error, _HOPELESS):
        raise RedisConnectionError(
            f"Redis at {address.public} refused our credentials ({error}). "
            "Check the user and password in the broker URL."
        ) from error
    if isinstance(error, exceptions.NoPermissionError) or _forbidden(str(error)):
        raise RedisPermissionError(
            f"Redis at {address.public} does not let this user do that ({error}). "
            "`rl doctor` prints the line that grants what relier needs."
        ) from error
    if str(error).startswith("Error compiling script") and "near '#'" in str(error):
        raise UnsupportedServerError(
            f"Redis at {address.public} does not read our scripts ({error}); relier needs Redis "
            "7.0 or later, or Valkey. Nothing was enqueued. Upgrade the server."
        ) from error
    if "WRONGTYPE" in str(error):
        raise ConfigurationError(
            f"{error}: something else uses that key of Redis at {address.public}. "
            "Nothing was changed; choose another queue name, or remove the key."
        ) from error
    if not isinstance(error, _TRANSIENT) and not is_troubled(error):
        raise error
    if out_of_time and isinstance(error, exceptions.ReadOnlyError):
        raise RedisConnectionError(
            f"Redis at {address.public} is a replica and takes no writes. Name the master in the "
            "URL; after a failover, have the address lead to the new one."
        ) from error
    if out_of_time or isinstance(error, exceptions.TimeoutError):
        raise RedisConnectionError(
            f"Redis at {address.public} did not answer in time ({error}). "
            "Check that it runs and can be reached; then dispatch again."
        ) from error


def _forbidden(text: str) -> bool:
    return any(words in text for words in _FORBIDDEN_WORDS)


def supported_version(info: dict[str, Any]) -> str:
    """Return the version text of a server new enough for us.

    Raises:
        UnsupportedServerError: it is older than Redis 7; every Valkey is new enough.
    """
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    version = str(info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < OLDEST_SERVER:
        raise UnsupportedServerError(
            f"the server is Redis {version}; relier needs Redis 7.0 or later, or Valkey. "
            "Upgrade the server."
        )
    return f"Redis {version}"
