"""Raise Celery's ``SoftTimeLimitExceeded`` inside a running body, be it coroutine or main thread.

Both see to it that the exception arises in the body or not at all: raised a moment late, it would
hit the commit.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

# What Celery uses for its own soft time limit.
_SIGNAL = signal.SIGUSR1

_asked: list[Callable[[], bool]] = []
_before: Any = None


def can_raise_here() -> bool:
    """Return whether this thread is the one that signals interrupt."""
    return threading.current_thread() is threading.main_thread()


def prepare() -> None:
    """Take part in the signal's handling; to be called in the main thread."""
    global _before
    handler = signal.getsignal(_SIGNAL)
    if handler is not _on_signal:
        _before = handler
        signal.signal(_SIGNAL, _on_signal)


def raise_in_main_thread(wanted: Callable[[], bool]) -> None:
    """Interrupt the main thread, even in a system call, if it then still wants to be.

    Args:
        wanted: asked in the main thread itself, so its answer cannot be out of date.
    """
    _asked.append(wanted)
    signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _asked:
        if _asked.pop(0)():
            raise SoftTimeLimitExceeded
    elif callable(_before):
        _before(number, frame)


class Interruptible(Coroutine[Any, Any, Any]):
    """A coroutine into which an exception can be thrown where it waits.

    asyncio knows one way to reach a waiting coroutine, its cancellation; this one exchanges the
    exception on the way in.

    Args:
        coroutine: what is run.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._pending: Exception | None = None

    def interrupt(self, task: asyncio.Task[Any]) -> None:
        """Throw the exception into the task that runs this; to be called in its loop."""
        if not task.done():
            self._pending = SoftTimeLimitExceeded()
            task.cancel()

    def send(self, value: Any) -> Any:
        """Go on."""
        return self._coroutine.send(value)

    def throw(self, error: Any, *rest: Any) -> Any:
        """Go on with an exception."""
        if self._pending is not None and isinstance(error, asyncio.CancelledError):
            error, self._pending, rest = self._pending, None, ()
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        return self._coroutine.throw(error, *rest)

    def close(self) -> None:
        """Give up."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()
