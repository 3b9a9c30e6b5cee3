"""The signals that end a worker, in Celery's words, answered by a drain.

SIGTERM and the first SIGINT are a warm shutdown: a drain with the grace of the settings. SIGQUIT
and the second SIGINT are a cold one: what runs has Celery's `worker_soft_shutdown_timeout` (none by
default). A second SIGTERM hands over at once. None of them loses a task, or blames one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from celery import signals
from celery.apps.worker import safe_say
from celery.utils.log import in_sighandler
from celery.worker import state as worker_state

from relier.worker.drain import Drain, Order

_CELERYS = "worker_"
"""How Celery's own handlers of these signals are called, with Warm or Cold behind."""

_WARM = "Warm"


def owns_process() -> bool:
    """Return whether this process is a `celery worker`, not a program with a worker inside."""
    return threading.current_thread() is threading.main_thread() and bool(_shutdown_of("SIGTERM"))


def _shutdown_of(name: str) -> str:
    """Return which shutdown Celery has put behind a signal (SIGTERM may be cold), or ""."""
    handler = getattr(signal.getsignal(getattr(signal, name)), "__name__", "")
    return handler.removeprefix(_CELERYS) if handler.startswith(_CELERYS) else ""


class ShutdownSignals:
    """Answers them in place of Celery, in the worker's main process.

    Args:
        drain: what to order.
        consumer: Celery's consumer.
    """

    def __init__(self, drain: Drain, consumer: Any) -> None:
        self._drain = drain
        self._hostname = consumer.hostname
        self._soft_s = float(consumer.app.conf.get("worker_soft_shutdown_timeout") or 0.0)
        self._pid = os.getpid()
        self._how: dict[int, str] = {}

    def install(self) -> None:
        """Take over the signals that Celery answers."""
        for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
            how = _shutdown_of(name)
            if how:
                number = getattr(signal, name)
                self._how[number] = how
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a pool process inherits the handler, but its end is the main process's to say
        name, how = signal.Signals(number).name, self._how[number]
        exit_code = 0 if (name, how) == ("SIGTERM", _WARM) else 1
        # First: a drain without grace may end the process, with this status, before the next line.
        if worker_state.should_stop in (None, False):
            worker_state.should_stop = exit_code
        with in_sighandler():
            self._drain.ask(Order(name, self._grace_s(how)))
            if name == "SIGINT":
                self._how[number] = "Cold"
            safe_say(f"worker: {how} shutdown (MainProcess)", sys.__stdout__)
            if name == "SIGINT" and how == _WARM:
                safe_say("worker: Ctrl+C again hands over all running tasks", sys.__stdout__)
            signals.worker_shutting_down.send(
                sender=self._hostname, sig=name, how=how, exitcode=exit_code
            )

    def _grace_s(self, how: str) -> float | None:
        if how != _WARM:
            return self._soft_s
        return 0.0 if self._drain.asked else None
