"""The receipt of a dispatch: Celery's result, with a way to await it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

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
