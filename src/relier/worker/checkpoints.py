"""What a run saves of its progress, and what an earlier attempt of its task saved.

A small state goes into Redis in one script. A large one is written to a file first, which the
server was told of before, and then referred to by the same script; so whatever dies on the way, the
checkpoint before stays valid, and a file that nobody refers to is known to be nobody's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import Any

from kombu.utils import json

from relier.errors import (
    CheckpointError,
    PayloadError,
    RedisConnectionError,
    RelierError,
    StaleFenceError,
)
from relier.protocol.checkpoint import Place
from relier.protocol.identity import Claim
from relier.store import checkpoints as store
from relier.store.broker import Broker
from relier.store.operations import Operation
from relier.store.running import Started, start_forgotten

logger = logging.getLogger(__name__)

_RETRY_PAUSE_S = 0.2
_COMPLAIN_EVERY_S = 5.0
_WRITES = 2

Step = Operation[Any] | Callable[[], Any]
"""One thing to wait for: a script, or work on a file."""


def encode(state: object) -> bytes:
    """Return a state as JSON, by the rules of Celery's task arguments.

    Raises:
        PayloadError: it has no JSON form.
    """
    try:
        return str(json.dumps(state)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(
            f"the state of a checkpoint cannot be serialised as JSON ({error}); nothing was saved. "
            "Save plain data: numbers, text, lists, dicts with text keys"
        ) from error


class Checkpoints:
    """The checkpoints of one run.

    Args:
        broker: where they go.
        claim: what the run holds.
        task_id: its task.
        started: what the server answered when it began.
        beginning: what asked for that.
    """

    def __init__(
        self,
        broker: Broker,
        claim: Claim,
        task_id: str,
        started: Started,
        beginning: Operation[Started],
    ) -> None:
        self._broker = broker
        self._claim = claim
        self._task_id = task_id
        self._fence = started.fence
        self._beginning = start_forgotten(beginning)
        self._earlier = earlier = started.checkpoint
        self._encoded: bytes | CheckpointError | None = earlier.state if earlier else None
        self._lock = threading.Lock()
        self._last = self._kept = 0
        self._written: dict[int, Place] = {}
        self._unwritten: dict[int, Place] = {}
        if earlier and earlier.place:
            self._written[0] = earlier.place

    def earlier(self) -> Any:
        """Return the state that an earlier attempt saved last; None when there is none.

        Raises:
            CheckpointError: there is one, but it cannot be read here.
        """
        self._fetch()
        if self._encoded is None:
            return None
        if isinstance(self._encoded, CheckpointError):
            raise self._encoded
        return json.loads(self._encoded)

    def save(self, state: object) -> None:
        """Save a state; see `TaskContext.save_partial`."""
        with closing(self._saving(state)) as steps:
            answer = None
            while (step := _next(steps, answer)) is not None:
                answer = self._take(step)

    async def asave(self, state: object) -> None:
        """Save a state from asyncio code."""
        with closing(self._saving(state)) as steps:
            answer = None
            while (step := _next(steps, answer)) is not None:
                answer = await self._atake(step)

    def tidy(self) -> None:
        """Remove the files that no checkpoint refers to any more; what fails is swept later."""
        with self._lock:
            places = [*self._written.values(), *self._unwritten.values()]
            self._written, self._unwritten = {}, {}
        self._remove(places)

    # -- the steps of saving

    def _saving(self, state: object) -> Generator[Step, Any, None]:
        encoded = encode(state)
        if len(encoded) <= self._broker.settings.checkpoint_max_inline_bytes:
            yield from self._keep(self._number(), len(encoded), encoded)
            return
        files = self._broker.checkpoint_files
        if files is None:
            raise PayloadError(
                f"the state of a checkpoint is {len(encoded):,} bytes, and those of up to "
                f"{self._broker.settings.checkpoint_max_inline_bytes:,} are kept in Redis; nothing "
                "was saved. Save less, raise RELIER_CHECKPOINT_MAX_INLINE_BYTES, or set "
                "RELIER_CHECKPOINT_BACKEND=filesystem and RELIER_CHECKPOINT_DIR"
            )
        for _ in range(_WRITES):
            number = self._number()
            place = yield from self._reserve(number, files.name)
            yield partial(files.write, place, encoded)
            if (yield from self._keep(number, len(encoded), place)):
                return
        raise CheckpointError(
            f"writing a checkpoint of {len(encoded):,} bytes took so long that its file was swept; "
            "nothing was saved. Save less, or look after the disk of RELIER_CHECKPOINT_DIR"
        )

    def _number(self) -> int:
        with self._lock:
            self._last += 1
            return self._last

    def _reserve(self, number: int, backend: str) -> Generator[Step, Any, Place]:
        keys, task = self._broker.keys, hashlib.sha256(self._task_id.encode()).hexdigest()[:24]
        name = f"{task}-{self._fence}-{number}"
        home = yield from self._ask(
            store.reserve_file(keys, self._claim, self._task_id, name, secrets.token_hex(8))
        )
        place = Place(backend, home, name)
        with self._lock:
            self._unwritten[number] = place
        return place

    def _keep(
        self, number: int, size_bytes: int, where: Place | bytes
    ) -> Generator[Step, Any, bool]:
        """Let the server refer to this state; False when its file was given up."""
        if 0 in self._written:
            # The file of the earlier attempt goes once it is replaced.
            yield self._fetch
        verdict = yield from self._ask(
            store.checkpoint(
                self._broker.keys, self._claim, self._task_id, number, size_bytes, where
            )
        )
        if verdict == store.GIVEN_UP:
            return False
        with self._lock:
            self._kept = max(self._kept, number)
            if isinstance(where, Place):
                # Only now: a later one must not remove what this one is still writing.
                self._written[number] = self._unwritten.pop(number, where)
            older = [n for n in self._written if n < self._kept]
            places = [self._written.pop(n) for n in older]
        if places:
            yield partial(self._remove, places)
        return True

    def _ask(self, operation: Operation[Any]) -> Generator[Step, Any, Any]:
        """Run an operation under the claim.

        Raises:
            StaleFenceError: the claim is not ours any more.
        """
        answer = yield operation
        if not answer and (yield self._beginning).verdict == "run":
            # A server that lost its last writes had forgotten that the task began.
            answer = yield operation
        if not answer:
            raise StaleFenceError(
                f"task {self._task_id} does not hold its claim any more (fence {self._fence} is "
                "stale): the checkpoint was not saved. Stop; the task runs elsewhere, or has ended"
            )
        return answer

    def _fetch(self) -> None:
        """Have the earlier state in hand, or the reason why not."""
        place = self._earlier.place if self._earlier else None
        if self._encoded is not None or place is None:
            return
        try:
            self._encoded = self._read(place)
        except CheckpointError as error:
            self._encoded = error

    def _read(self, place: Place) -> bytes:
        files = self._broker.checkpoint_files
        if files is None or files.name != place.backend:
            raise CheckpointError(
                f"the checkpoint of an earlier attempt is kept by the backend {place.backend!r}, "
                "which this worker does not have: give all workers the same "
                "RELIER_CHECKPOINT_BACKEND and RELIER_CHECKPOINT_DIR"
            )
        encoded = files.read(place)
        assert self._earlier is not None
        if len(encoded) != self._earlier.size_bytes:
            raise CheckpointError(
                f"the checkpoint file {place.name} has {len(encoded):,} bytes and should have "
                f"{self._earlier.size_bytes:,}: it was damaged after it was written. Check the "
                "disk of RELIER_CHECKPOINT_DIR"
            )
        return encoded

    def _remove(self, places: Iterable[Place]) -> None:
        """Remove those files that no checkpoint refers to; the server knows."""
        files = self._broker.checkpoint_files
        by_name = {place.name: place for place in places}
        if files is None or not by_name:
            return
        try:
            free = self._broker.store.run(store.free_files(self._broker.keys, list(by_name)))
            for name in free:
                files.remove(by_name[name])
        except RelierError as error:
            logger.warning("checkpoint files of %s are left to the sweep: %s", self._task_id, error)

    # -- waiting

    def _take(self, step: Step) -> Any:
        if not isinstance(step, Operation):
            return step()
        complained_s = 0.0
        while True:
            try:
                return self._broker.store.run(step)
            except RedisConnectionError as error:
                # Without Redis the task could not end either, so it waits for both.
                complained_s = self._complain(complained_s, error)
                time.sleep(_RETRY_PAUSE_S)

    async def _atake(self, step: Step) -> Any:
        if not isinstance(step, Operation):
            return await asyncio.to_thread(step)
        complained_s = 0.0
        while True:
            try:
                return await self._broker.async_store().run(step)
            except RedisConnectionError as error:
                complained_s = self._complain(complained_s, error)
                await asyncio.sleep(_RETRY_PAUSE_S)

    def _complain(self, complained_s: float, error: Exception) -> float:
        now_s = time.monotonic()
        if now_s - complained_s <= _COMPLAIN_EVERY_S:
            return complained_s
        logger.warning("task %s waits for Redis to save a checkpoint: %s", self._task_id, error)
        return now_s


def _next(steps: Generator[Step, Any, None], answer: Any) -> Step | None:
    try:
        return steps.send(answer)
    except StopIteration:
        return None
