"""The receipt of a dispatch: Celery's result, with a way to await it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, overload

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1


class Receipt(AsyncResult):
    """An accepted task: `.id`, `.status`, `.ready()`, `.get(timeout)`, `.aget(timeout)`."""

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> Any:  # noqa: ASYNC109 - Celery's word
        """Wait for the result without blocking the event loop.

        Args:
            timeout: seconds to wait, or None for ever.
            propagate: raise the task's exception rather than return it.

        Raises:
            celery.exceptions.TimeoutError: it was not ready in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause_s = _FIRST_PAUSE_S
        while True:
            meta = await asyncio.to_thread(self._get_task_meta)
            if meta["status"] in states.READY_STATES:
                if propagate and meta["status"] in states.PROPAGATE_STATES:
                    raise meta["result"]
                return meta["result"]
            if deadline is not None and time.monotonic() + pause_s > deadline:
                raise CeleryTimeoutError(f"{self.id} was not ready within {timeout} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class Receipts(Sequence[Receipt]):
    """The receipts of a bulk dispatch, in its order; each is made when it is asked for.

    Args:
        ids: the task ids.
        app: the app they belong to.
        name: the task's name.
        ignored: whether the task stores no result.
    """

    def __init__(self, ids: list[str], app: Any, name: str, *, ignored: bool) -> None:
        self.ids = ids
        self._app = app
        self._name = name
        self._ignored = ignored

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Receipt: ...
    @overload
    def __getitem__(self, index: slice) -> Receipts: ...
    def __getitem__(self, index: int | slice) -> Receipt | Receipts:
        if isinstance(index, slice):
            return Receipts(self.ids[index], self._app, self._name, ignored=self._ignored)
        receipt = Receipt(self.ids[index], app=self._app, task_name=self._name)
        receipt.ignored = self._ignored
        return receipt
