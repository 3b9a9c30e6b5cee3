"""``idempotency_lock``: a block of code that succeeds once for a key."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import threading
import time
from types import TracebackType
from typing import Any, Self

from celery import Celery, current_app, current_task

from relier.errors import (
    ConfigurationError,
    IdempotencyInFlightError,
    RedisConnectionError,
    StaleFenceError,
)
from relier.protocol.idempotency import LONGEST_KEPT_S
from relier.protocol.identity import Claim, mint_token
from relier.store import locking
from relier.store.broker import Broker
from relier.store.locking import Asked
from relier.store.operations import Operation
from relier.worker import replay

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25


class idempotency_lock:  # noqa: N801 - used as a context manager
    """Run a block for a key one at a time, and, once it has set a result, never again.

    Works with ``with`` and ``async with``. Inside a task the lock lives exactly as long as the
    task's claim: a process that dies frees it as its task is brought back. Elsewhere it is a lease
    that renews itself while the block runs. An exception in the block frees the key.

    Args:
        key: what the block is done for; all of an app's processes share one namespace.
        ttl: seconds for which the result is kept; None takes ``IDEMPOTENCY_DEFAULT_TTL``.
        wait: wait for a busy owner; False raises instead.
        app: the Celery app under relier; None takes the running task's, or the current one.

    Raises:
        IdempotencyInFlightError: on entering, with ``wait=False``, while another has the key; or
            when the very task that asks has it already.
        StaleFenceError: on leaving, if the key was not ours any more: the result was not kept.
        RedisConnectionError: Redis did not answer within the socket timeout.
    """

    def __init__(
        self,
        key: str,
        ttl: float | None = None,
        *,
        wait: bool = True,
        app: Celery | None = None,
    ) -> None:
        if ttl is not None and not 0 < ttl <= LONGEST_KEPT_S:
            raise ConfigurationError(
                "the ttl of an idempotency_lock must be more than 0 seconds, and 10 years at most"
            )
        self.key = key
        self.already_executed = False
        self.cached_result: Any = None
        self._app = app or _running_app()
        self._broker = _broker(self._app)
        settings = self._broker.settings
        self._ttl_ms = int((ttl or settings.idempotency_default_ttl_s) * 1000)
        self._lease_s = settings.heartbeat_ttl_s
        self._wait = wait
        self._name = hashlib.sha256(key.encode()).hexdigest()
        self._token = ""
        self._claim = _running_claim()
        self._result = b""
        self._longest_pause_s = _LONGEST_PAUSE_S
        self._renewal: threading.Thread | asyncio.Task[None] | None = None
        self._left = threading.Event()

    def set_result(self, result: Any) -> None:
        """Give the block's result; it is kept when the block is left without an exception.

        Raises:
            kombu.exceptions.EncodeError: it cannot be serialised.
            ConfigurationError: there is one already.
        """
        if self.already_executed:
            raise ConfigurationError(
                f"the key {self.key!r} has a result already: return lock.cached_result instead"
            )
        self._result = replay.encode_value(self._app, result)

    # -- sync

    def __enter__(self) -> Self:
        self._begin()
        pause_s = _FIRST_PAUSE_S
        while not self._is_in(self._broker.store.run(self._ask())):
            time.sleep(_jittered(pause_s))
            pause_s = min(pause_s * 2, self._longest_pause_s)
        if not self.already_executed and self._claim is None:
            self._renewal = threading.Thread(target=self._keep, name="relier-lock", daemon=True)
            self._renewal.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left.set()
        if isinstance(self._renewal, threading.Thread):
            # A renewal that arrives after the end would take the key again.
            self._renewal.join()
        if not self.already_executed:
            ours = self._broker.store.run(self._leave(failed=error is not None))
            self._check_kept(ours, failed=error is not None)

    def _keep(self) -> None:
        while not self._left.wait(self._lease_s / 3):
            try:
                self._broker.store.run(self._ask())
            except RedisConnectionError as problem:
                logger.warning("could not renew the lock %r yet: %s", self.key, problem)

    # -- async

    async def __aenter__(self) -> Self:
        self._begin()
        store, pause_s = self._broker.async_store(), _FIRST_PAUSE_S
        while not self._is_in(await store.run(self._ask())):
            await asyncio.sleep(_jittered(pause_s))
            pause_s = min(pause_s * 2, self._longest_pause_s)
        if not self.already_executed and self._claim is None:
            self._renewal = asyncio.create_task(self._akeep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(self._renewal, asyncio.Task):
            self._renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewal
        if not self.already_executed:
            ours = await self._broker.async_store().run(self._leave(failed=error is not None))
            self._check_kept(ours, failed=error is not None)

    async def _akeep(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await self._broker.async_store().run(self._ask())
            except RedisConnectionError as problem:
                logger.warning("could not renew the lock %r yet: %s", self.key, problem)

    # -- what both do

    def _begin(self) -> None:
        """Begin a use; each is another's to the server."""
        self._token = mint_token()
        self.already_executed, self.cached_result, self._result = False, None, b""
        self._left.clear()

    def _ask(self) -> Operation[Asked]:
        lease_ms = int(self._lease_s * 1000)
        return locking.lock(self._broker.keys, self._name, self._token, lease_ms, self._claim)

    def _leave(self, *, failed: bool) -> Operation[bool]:
        result = b"" if failed else self._result
        return locking.unlock(
            self._broker.keys, self._name, self._token, result, self._ttl_ms, self._claim
        )

    def _is_in(self, asked: Asked) -> bool:
        """Read the server's answer; False: ask again."""
        if asked.verdict == "busy" and self._wait:
            self._longest_pause_s = min(asked.wait_ms / 1000, _LONGEST_PAUSE_S)
            return False
        if asked.verdict in ("busy", "own"):
            who = "this very task" if asked.verdict == "own" else "another"
            raise IdempotencyInFlightError(
                f"{who} runs the block for {self.key!r} now; try again later, or use wait=True"
            )
        if asked.verdict == "stale":
            raise StaleFenceError(
                f"this task lost its claim, so it cannot lock {self.key!r}: stop, it runs elsewhere"
            )
        if asked.verdict == "done":
            self.already_executed = True
            self.cached_result = replay.read_value(self._app, asked.result).value
        return True

    def _check_kept(self, ours: bool, *, failed: bool) -> None:
        if ours or failed:
            return
        raise StaleFenceError(
            f"the lock {self.key!r} was not ours any more when its block ended, so the result was "
            "not kept: another may have run the block meanwhile"
        )


def _running_app() -> Celery:
    task = current_task._get_current_object() if current_task else None
    app: Celery = task.app if task is not None else current_app._get_current_object()
    return app


def _broker(app: Celery) -> Broker:
    relier = getattr(app, "relier", None)
    if relier is None:
        raise ConfigurationError(
            "idempotency_lock needs an app under Relier: use it inside its tasks, or give app="
        )
    broker: Broker = relier.broker
    return broker


def _running_claim() -> Claim | None:
    task = current_task._get_current_object() if current_task else None
    run = getattr(task.request, "relier_run", None) if task is not None else None
    claim: Claim | None = run.claim if run is not None else None
    return claim


def _jittered(pause_s: float) -> float:
    return pause_s * random.uniform(0.5, 1.0)
