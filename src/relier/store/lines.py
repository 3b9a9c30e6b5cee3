"""Connections kept ready for scripts.

redis-py's pool asks more questions per call than a script takes to run. A line is a connection of
redis-py's with nothing around it: taken, used for one question and its answer, and put back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionLost

from relier.store.operations import Argument


def new_connection(pool: Any) -> Any:
    """Return a connection as a pool makes them, one that the pool does not count.

    What its own `make_connection` counted is never counted back when the connection is thrown
    away: after an outage of fifty attempts it would refuse every further one, for ever.
    """
    return pool.connection_class(**pool.connection_kwargs)


class Lines:
    """Lines of a synchronous client; threads share them, and a forked child gets its own.

    Args:
        pool: makes the connections; it holds none of them.
        most: how many may be out at once.
        timeout_s: how long to wait for one.
    """

    def __init__(self, pool: redis.ConnectionPool, most: int, timeout_s: float) -> None:
        self._pool = pool
        self._most = most
        self._timeout_s = timeout_s
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: deque[Any] = deque()
        self._out = threading.Semaphore(self._most)

    def take(self) -> Any:
        """Return a connection, an idle one if there is one.

        Raises:
            redis.exceptions.ConnectionError: the server is away, or all lines are busy.
        """
        if self._pid != os.getpid():
            # A child's copies of its parent's sockets are not its own to use or to shut.
            self._begin()
        if not self._out.acquire(timeout=self._timeout_s):
            raise RedisConnectionLost(
                f"all {self._most} connections are busy; raise RELIER_REDIS_MAX_CONNECTIONS"
            )
        try:
            return self._idle.pop()
        except IndexError:
            return new_connection(self._pool)

    def give(self, connection: Any, *, sound: bool) -> None:
        """Put a connection back; after an error it is closed, and so are all that wait idle."""
        if sound:
            self._idle.append(connection)
        else:
            connection.disconnect()
            self.close()
        self._out.release()

    def ask(self, command: Sequence[Argument]) -> Any:
        """Send one command and return its reply.

        Raises:
            redis.exceptions.RedisError: as redis-py does.
        """
        connection = self.take()
        sound = False
        try:
            connection.send_command(*command)
            reply = connection.read_response()
            sound = True
        except redis.exceptions.ResponseError:
            sound = True
            raise
        finally:
            self.give(connection, sound=sound)
        return reply

    def close(self) -> None:
        """Close the idle lines."""
        while self._idle:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                return


class AsyncLines:
    """Lines of an asynchronous client, for one event loop."""

    def __init__(self, pool: redis.asyncio.ConnectionPool, most: int, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._idle: deque[Any] = deque()
        self._out = asyncio.Semaphore(most)

    async def ask(self, command: Sequence[Argument]) -> Any:
        """Send one command and return its reply; waits while all lines are busy."""
        async with self._out:
            connection = self._idle.pop() if self._idle else new_connection(self._pool)
            sound = False
            try:
                if not connection.is_connected:
                    await connection.connect()
                await connection.send_command(*command)
                reply = await connection.read_response()
                sound = True
            except redis.exceptions.ResponseError:
                sound = True
                raise
            finally:
                # A cancelled call leaves a reply under way: its line is of no more use.
                if sound:
                    self._idle.append(connection)
                else:
                    await connection.disconnect(nowait=True)
            return reply

    def drop(self) -> None:
        """Close the idle lines' sockets when their event loop has ended."""
        while self._idle:
            writer = getattr(self._idle.pop(), "_writer", None)
            sock = writer.get_extra_info("socket") if writer is not None else None
            if sock is not None:
                # Closing the transport would need its loop; the socket goes with the transport.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Close the idle lines."""
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)
