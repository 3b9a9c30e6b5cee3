"""The bench's tasks, the same bodies for vanilla Celery and for relier.

Worker processes take their app from here (``celery -A relier.bench.workload``), told by the
environment which flavour to be. Nothing of relier is imported before the flavour asks for it: a
vanilla worker must not carry what it does not use.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

VANILLA, VANILLA_LATE, RELIER, GUARDED = "vanilla", "vanilla-late", "relier", "relier-guarded"

FLAVOUR_VARIABLE = "BENCH_FLAVOUR"
URL_VARIABLE = "BENCH_URL"
JOURNAL_VARIABLE = "BENCH_JOURNAL"

QUEUE = "bench"
_GUARDS: dict[str, Any] = {
    "secret_key": "the key of the bench's own messages",
    "admission_limit": 1_000_000_000,
}
SOFT_S, HARD_S = 1, 2
"""What tasks that outstay are allowed."""

SIGN_S = 0.01
_GATE_POLL_S = 0.002
_PR_SET_PDEATHSIG = 1


def make_app(flavour: str, url: str) -> Celery:
    """Make an app with the bench's tasks.

    Args:
        flavour: ``VANILLA`` (Celery's defaults), ``VANILLA_LATE`` (what vanilla Celery offers
            against lost tasks: acks_late, reject_on_worker_lost, prefetch 1), ``RELIER``, or
            ``GUARDED``: the same with signatures and an admission limit.
        url: broker and result backend.
    """
    app = Celery("bench", broker=url, backend=url, set_as_current=False)
    app.conf.task_default_queue = QUEUE
    task: Callable[..., Any] = app.task
    bodies: dict[Callable[..., Any], dict[str, Any]] = {**_BODIES, outstay: _LIMITS}
    if flavour == VANILLA_LATE:
        app.conf.task_acks_late = True
        app.conf.task_reject_on_worker_lost = True
        app.conf.worker_prefetch_multiplier = 1
    elif flavour in (RELIER, GUARDED):
        # Imported here, so that a vanilla worker's memory does not hold them.
        from relier.bench.coroutines import aoutstay, outstay_stubbornly
        from relier.tasks.decorator import rl_task
        from relier.tasks.install import Relier

        Relier(app, redis_url=url, **(_GUARDS if flavour == GUARDED else {}))
        task = partial(rl_task, app=app)
        late: list[Callable[..., Any]] = [outstay, aoutstay, outstay_stubbornly]
        bodies |= dict.fromkeys(late, _TIMEOUTS)
    for body, options in bodies.items():
        task(name=f"bench.{body.__name__}", shared=False, **options)(body)
    return app


def empty() -> None:
    """Do nothing."""


def add(a: int, b: int) -> int:
    """Do next to nothing."""
    return a + b


def step(task: Any, duration_s: float) -> None:
    """Take a while."""
    note_start(task)
    time.sleep(duration_s)


def hold(task: Any, gate: str) -> None:
    """Run until a file is there."""
    note_start(task)
    while not os.path.exists(gate):
        time.sleep(_GATE_POLL_S)


def kill_process(task: Any) -> None:
    """Take this pool process down."""
    note_start(task)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_worker(task: Any) -> None:
    """Take the whole worker down, which has a process group of its own."""
    note_start(task)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def outstay(task: Any) -> None:
    """Run until stopped."""
    note_start(task)
    while True:
        try:
            note("alive", task.request.id)
            time.sleep(SIGN_S)
        except SoftTimeLimitExceeded:
            note("hook", task.request.id)


def _note_hook(context: Any) -> None:
    note("hook", context.task_id)


def note_start(task: Any) -> None:
    """Write down that a task has begun."""
    run = getattr(task.request, "relier_run", None)
    note("started", task.request.id, run.started.fence if run else 0)


def _note_commit(_task: Any, _value: Any, task_id: str, _args: Any, _kwargs: Any) -> None:
    note("committed", task_id)


_BOUND: dict[str, Any] = {"bind": True, "on_success": _note_commit}
_BODIES: dict[Callable[..., Any], dict[str, Any]] = {
    empty: {},
    add: {},
    step: _BOUND,
    hold: _BOUND,
    kill_process: _BOUND,
    kill_worker: _BOUND,
}


_LIMITS = {"bind": True, "soft_time_limit": SOFT_S, "time_limit": HARD_S}
_TIMEOUTS = {
    "bind": True,
    "soft_timeout": SOFT_S,
    "hard_timeout": HARD_S,
    "on_soft_timeout": _note_hook,
}


def note(*fields: object) -> None:
    """Append a line to the journal: one write, so that lines of several processes do not mix."""
    line = "\t".join([f"{time.monotonic():.6f}", str(os.getpid()), *map(str, fields)])
    fd = os.open(os.environ[JOURNAL_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def _die_with_parent() -> None:
    """Have Linux end this worker when the bench is killed; a normal end cleans up by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if FLAVOUR_VARIABLE in os.environ:
    _die_with_parent()
    app = make_app(os.environ[FLAVOUR_VARIABLE], os.environ[URL_VARIABLE])
