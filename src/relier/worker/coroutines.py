"""Run a task's coroutine to its end, inside its timeouts."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from relier.worker.timed import Timed

R = TypeVar("R")

logger = logging.getLogger(__name__)

_CANCEL_WITHIN_S = 5.0
_loops = threading.local()


def complete(coroutine: Coroutine[Any, Any, R], timed: Timed | None) -> R:
    """Run a coroutine on this thread's own event loop, which lives as long as the thread.

    One loop for all its tasks: clients that a task opens may be used by the next.
    """
    runner: asyncio.Runner | None = getattr(_loops, "runner", None)
    if runner is None:
        runner = _loops.runner = asyncio.Runner()
    loop = runner.get_loop()
    task: asyncio.Task[R]
    task = loop.create_task(coroutine if timed is None else timed.coroutine(coroutine))
    try:
        if timed is not None:
            timed.on_loop(loop, task)
        return loop.run_until_complete(task)
    finally:
        # Nothing of the task, or of its hook, may go on beside the next.
        if not task.done() and timed is not None and timed.expired:
            _lose(loop)
        elif not task.done():
            _stop(runner, task)  # Celery's time limit was raised into the loop
        if timed is not None and not timed.off_loop():
            _lose(loop)


def _stop(runner: asyncio.Runner, task: asyncio.Task[Any]) -> None:
    """Cancel a coroutine that was left; one that will not end loses its loop."""
    task.cancel()
    loop = runner.get_loop()
    loop.run_until_complete(asyncio.wait({task}, timeout=_CANCEL_WITHIN_S))
    if not task.done():
        _lose(loop)


def _lose(loop: asyncio.AbstractEventLoop) -> None:
    """Let go of the loop in which something was cancelled and would not end.

    It does not turn again, so another takes its place as the thread's own. People were told of what
    is in it: asyncio need not say once more, at some later moment, that it is destroyed.
    """
    loop.set_exception_handler(_say_little)
    runner = _loops.runner = asyncio.Runner()
    runner.get_loop()


def _say_little(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    logger.debug("in an event loop that was given up: %s", context.get("message"))
