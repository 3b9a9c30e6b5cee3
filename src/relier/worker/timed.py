"""One execution against its timeouts, and against what stops it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from relier.errors import RedisConnectionError, RelierError
from relier.protocol import outcome as outcomes
from relier.protocol import timeouts as rules
from relier.protocol.identity import Claim
from relier.store import running
from relier.worker import interrupt
from relier.worker.board import Place
from relier.worker.hooks import HookCall
from relier.worker.interrupt import Interruptible
from relier.worker.timing import Timing, overdue

if TYPE_CHECKING:
    from relier.worker.timeouts import Timekeeper

logger = logging.getLogger(__name__)

HOOK_GRACE_S = 1.0
"""How long the end of a body waits for a hook that still runs: it may be saving state."""

_RETRY_PAUSE_S = 0.2
_LEAVE_WITHIN_S = 0.1
_ORPHANED_AFTER_S = 0.5
"""How much later than the main process a pool process looks after itself."""


class Timed:
    """One execution against its timeouts; ``expired`` once its coroutine was cancelled.

    Its alarms ring in the process's alarm thread, its body runs in another: the lock sees to it
    that nothing begins once the body has ended.
    """

    def __init__(
        self, keeper: Timekeeper, timing: Timing, claim: Claim, task_id: str, place: Place | None
    ) -> None:
        self.timing = timing
        self.claim = claim
        self.task_id = task_id
        self.deadline: float | None = None
        self.expired = False
        self._keeper = keeper
        self._place = place
        self._lock = threading.Lock()
        self._over = False
        self._in_body = True
        self._interruptible = interrupt.can_raise_here()
        self._next = 0
        self._begun_s = 0.0
        self._context: Any = None
        self._variables: Context | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._coroutine: Interruptible | None = None
        self._hook: HookCall | None = None
        self._hook_is_due = False
        self._cancel_is_due = False

    def __str__(self) -> str:
        return f"{self.timing.name}[{self.task_id}]"

    # -- the body's own thread

    def begin(self) -> None:
        """Start the clock."""
        timing, self._begun_s = self.timing, time.monotonic()
        if timing.raises and not timing.runs_coroutine and self._interruptible:
            interrupt.prepare()
        if timing.limits.hard_s is not None:
            self.deadline = time.time() + timing.limits.hard_s
            if self._place is not None:
                stop_at_s = self._begun_s + timing.moments[-1].after_s
                self._place.write(int(self.claim.number), stop_at_s)
        self._await_next()

    def enter(self, context: Any) -> None:
        """Learn of the body's context, which is its hook's too."""
        if self.timing.hook is None:
            return
        with self._lock:
            self._context, self._variables = context, copy_context()
            if self._hook_is_due:
                self._start_hook()

    def coroutine(self, coroutine: Any) -> Any:
        """Return the body's coroutine as it is to be run."""
        if not self.timing.raises:
            return coroutine
        self._coroutine = Interruptible(coroutine)
        return self._coroutine

    def on_loop(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Learn of the task that runs the body's coroutine."""
        with self._lock:
            self._loop, self._task = loop, task
            if self._cancel_is_due:
                self._cancel_coroutine()

    def off_loop(self) -> bool:
        """Let the hook end, or cancel it; return False if it goes on in the loop all the same."""
        self._stop_clock()
        with self._lock:
            loop, self._loop, self._task = self._loop, None, None
            hook = self._hook
        if loop is None or hook is None:
            return True
        hook.give_up()
        loop.run_until_complete(hook.finish(self._patience_s()))
        return hook.left_loop

    def leave_body(self) -> None:
        """Interrupt nothing from here on."""
        self._in_body = False

    def end(self) -> None:
        """Stop the clock: the body has ended, and what follows has the time it needs."""
        self._stop_clock()
        if self._hook is not None and not self._hook.wait(self._patience_s()):
            logger.warning("on_soft_timeout of %s still runs though its task has ended", self)

    def _stop_clock(self) -> None:
        self._in_body = False
        with self._lock:
            if self._over:
                return
            self._over = True
        self._keeper.alarms.drop(self)
        if self._place is not None and self.timing.limits.hard_s is not None:
            self._place.write(0, 0.0)
        self._keeper.forget(self)

    def _patience_s(self) -> float:
        """Return how long a hook may keep the end of its task waiting."""
        hard_s = self.timing.limits.hard_s
        if hard_s is None:
            return HOOK_GRACE_S
        return min(HOOK_GRACE_S, max(self._begun_s + hard_s - time.monotonic(), 0.0))

    # -- the alarm thread

    def run_hook(self) -> HookCall | None:
        """Run the soft timeout's hook now, unless it runs; for a drain, too.

        Returns:
            The call, to wait for; None when there is no hook, or the body has ended.
        """
        with self._lock:
            return None if self._over else self._start_hook()

    def _await_next(self) -> None:
        if self._next == len(self.timing.moments):
            return
        after_s, what = self.timing.moments[self._next]
        if what == "stop" and self._place is not None:
            after_s += _ORPHANED_AFTER_S
        self._keeper.alarms.set(self, self._begun_s + after_s, self._ring)

    def _ring(self) -> None:
        with self._lock:
            if self._over:
                return
            moment = self.timing.moments[self._next]
            self._next += 1
            self._await_next()
            _DO[moment.what](self)

    def _soft(self) -> None:
        _in_thread("relier-soft-timeout", self._tell_soft)
        self._hook_is_due = True
        self._start_hook()
        if not self.timing.raises:
            return
        if self.timing.runs_coroutine:
            self._on_loop(self._interrupt_coroutine)
        elif self._interruptible:
            interrupt.raise_in_main_thread(lambda: self._in_body)

    def _cancel(self) -> None:
        self._cancel_is_due = True
        self._on_loop(self._cancel_coroutine)

    def _stop(self) -> None:
        if self._place is not None:
            self._place.leave_if_orphaned(self)
            return
        self._on_loop(self._leave_coroutine)
        _in_thread("relier-hard-timeout", self._take_claim_away)

    def _on_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(call)
            except RuntimeError:
                logger.debug("%s ended its event loop", self)

    def _start_hook(self) -> HookCall | None:
        if self.timing.hook is None or self._variables is None:
            return None
        if self._hook is None or self._hook.ended:
            # A context can be entered once at a time, and a drain may call the hook once more.
            variables = self._variables.copy()
            hook = self._hook = HookCall(self.timing.hook, self._context, variables, str(self))
            if self._loop is not None and inspect.iscoroutinefunction(self.timing.hook):
                self._on_loop(self._begin_hook)
            else:
                hook.in_thread()
        return self._hook

    # -- in the event loop

    def _begin_hook(self) -> None:
        if self._loop is not None and self._hook is not None:
            self._hook.on_loop(self._loop)

    def _interrupt_coroutine(self) -> None:
        if self._task is not None and self._coroutine is not None:
            self._coroutine.interrupt(self._task)

    def _cancel_coroutine(self) -> None:
        # One that ended in this very moment was in time.
        if self._task is not None and not self._task.done():
            self.expired = True
            self._task.cancel()

    def _leave_coroutine(self) -> None:
        """Stop the loop under a coroutine that would not be cancelled."""
        if self._loop is not None and self._task is not None and not self._task.done():
            self._loop.stop()

    # -- in threads of their own: Redis may be away

    def _tell_soft(self) -> None:
        limits = self.timing.limits
        hard = "" if limits.hard_s is None else f"; it is stopped at {limits.hard_s:g} s"
        logger.warning("%s is over its soft timeout of %g s%s", self, limits.soft_s, hard)
        if self.timing.raises and not (self.timing.runs_coroutine or self._interruptible):
            logger.warning("%s runs in a thread: raise_on_soft cannot interrupt it here", self)
        broker = self._keeper.broker
        detail = f"soft timeout of {limits.soft_s:g} s"
        try:
            broker.store.run(running.overtime(broker.keys, self.claim, self.task_id, detail))
        except RelierError as error:
            logger.warning("could not write down the soft timeout of %s: %s", self, error)

    def _take_claim_away(self) -> None:
        if self._loop is not None:
            time.sleep(_LEAVE_WITHIN_S)
        hard_s = self.timing.limits.hard_s or 0.0
        outcome = outcomes.encode(overdue(self.timing.name, hard_s))
        broker = self._keeper.broker
        operation = running.condemn(broker.keys, self.claim, self.task_id, "hard timeout", outcome)
        while not self._over:
            try:
                condemned = broker.store.run(operation)
            except RedisConnectionError:
                time.sleep(_RETRY_PAUSE_S)
            else:
                if condemned:
                    logger.error(
                        "%s is over its hard timeout of %g s and counts as failed; it cannot be "
                        "stopped in this pool and occupies it until it ends",
                        self,
                        hard_s,
                    )
                return


_DO: dict[rules.What, Callable[[Timed], None]] = {
    "soft": Timed._soft,
    "cancel": Timed._cancel,
    "stop": Timed._stop,
}


def _in_thread(name: str, call: Callable[[], None]) -> None:
    threading.Thread(target=call, name=name, daemon=True).start()
