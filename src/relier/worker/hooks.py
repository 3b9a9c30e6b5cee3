"""One call of a soft timeout's hook, beside the task.

A hook is the user's code: whatever it raises is reported, and nothing waits for it longer than it
is told to.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

logger = logging.getLogger(__name__)

_CANCEL_WITHIN_S = 0.1


class HookCall:
    """A hook that is running, or has ended.

    Args:
        hook: what to call, sync or async.
        context: the task's context, its only argument.
        variables: the context variables of the task's body.
        task: the task in words, for the log.
    """

    def __init__(
        self, hook: Callable[[Any], Any], context: Any, variables: Context, task: str
    ) -> None:
        self._hook = hook
        self._context = context
        self._variables = variables
        self._task = task
        self._ended = threading.Event()
        self._on_loop: asyncio.Task[None] | None = None
        self._in_thread = False

    @property
    def ended(self) -> bool:
        """Return whether it has returned, raised or been cancelled."""
        return self._ended.is_set()

    @property
    def left_loop(self) -> bool:
        """Return whether nothing of it is in an event loop of the task's."""
        return self._on_loop is None or self._on_loop.done()

    def wait(self, timeout_s: float) -> bool:
        """Return whether it ends in time; not for the thread of the loop that it runs on."""
        return self._ended.wait(timeout_s)

    def in_thread(self) -> None:
        """Run it in a thread of its own; a coroutine gets a loop there."""
        self._in_thread = True
        threading.Thread(
            target=self._variables.run,
            args=(self._run,),
            name="relier-soft-timeout-hook",
            # A hook that hangs must not keep the process from ending.
            daemon=True,
        ).start()

    def on_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run it as a task of the running loop."""
        self._on_loop = loop.create_task(self._await(), context=self._variables)

    def give_up(self) -> None:
        """Do not begin in the loop, if it was to begin there."""
        if not self._in_thread and self._on_loop is None:
            self._ended.set()

    async def finish(self, timeout_s: float) -> None:
        """Let it end in time, or else cancel it; in the loop that it runs on."""
        if self._on_loop is None:
            return
        await asyncio.wait({self._on_loop}, timeout=timeout_s)
        if not self._on_loop.done():
            self._on_loop.cancel()
            await asyncio.wait({self._on_loop}, timeout=_CANCEL_WITHIN_S)

    def _run(self) -> None:
        try:
            result = self._hook(self._context)
            if inspect.isawaitable(result):
                asyncio.run(_awaited(result))
        except BaseException:  # noqa: BLE001 - whatever a hook raises is its own
            self._report()
        finally:
            self._ended.set()

    async def _await(self) -> None:
        try:
            await self._hook(self._context)
        except asyncio.CancelledError:
            logger.warning("on_soft_timeout of %s was cancelled: its task has ended", self._task)
            raise
        except GeneratorExit:
            raise  # it would not be cancelled, and its loop is gone; that was said
        except BaseException:  # noqa: BLE001 - whatever a hook raises is its own
            self._report()
        finally:
            self._ended.set()

    def _report(self) -> None:
        logger.exception("on_soft_timeout of %s raised; the task goes on", self._task)


async def _awaited(result: Any) -> None:
    await result
