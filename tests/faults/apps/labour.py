"""Tasks that write down what they do, wait for the test's leave, or kill what runs them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery

from relier import Relier, rl_task
from relier.errors import StaleFenceError
from relier.tasks.context import TaskContext, task_context
from relier.tasks.task import RelierTask
from support.journal import VARIABLE, Journal

BROKER = "RELIER_TEST_BROKER"
PREFETCH = "RELIER_TEST_PREFETCH"
"""Sets Celery's multiplier; its own option does not take 0."""
SOFT_SHUTDOWN = "RELIER_TEST_SOFT_SHUTDOWN"
QUEUE = "labour"


def lethal(word: str) -> str:
    """Be a key function that kills each worker's process which asks it, and spares the producer."""
    if BROKER in os.environ:
        Journal.from_env().write("asked", word)
        os.kill(os.getpid(), signal.SIGKILL)
    return word


def stuck(word: str) -> str:
    """Be a key function that never says it in a worker."""
    if BROKER in os.environ:
        time.sleep(GATE_DEADLINE_S)
    return word


ONCE: dict[str, dict[str, Any]] = {
    "once": {},
    "once_a_second": {"idempotency_ttl": 1},
    "once_a_letter": {"idempotency_key": lambda word, **_: word[0]},
    "once_at_odds": {"idempotency_key": lambda word: word[99]},
    "once_lethal": {"idempotency_key": lethal, "max_resurrections": 2},
    "once_stuck": {"idempotency_key": stuck, "hard_timeout": 0.5},
    "once_resigned": {"idempotency_key": lambda _: sys.exit(3) if BROKER in os.environ else ""},
}
GATE_DEADLINE_S = 60.0
DATED_S = 60
BRIEF_S = 0.15
"""Long enough to be killed in."""
MAIN_PID = os.getpid()
"""The worker's main process, which imports this before it forks."""


def gate(word: str) -> Path:
    """Return the file whose existence lets `hold(word)` end."""
    return Path(os.environ[VARIABLE]).with_name(f"gate-{word}")


def note(word: str) -> str:
    """Write the word down."""
    Journal.from_env().write("ran", word)
    return word


def hold(word: str) -> str:
    """Run until the test opens the gate."""
    journal, context = Journal.from_env(), task_context()
    journal.write("began", word, context.attempt, context.resurrections, context.fence)
    deadline = time.monotonic() + GATE_DEADLINE_S
    while not gate(word).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    journal.write("passed", word)
    return word


def work(word: str, duration_s: float) -> str:
    """Run for a while."""
    Journal.from_env().write("began", word)
    time.sleep(duration_s)
    Journal.from_env().write("passed", word)
    return word


def poison(word: str) -> str:
    """Kill the process it runs in."""
    Journal.from_env().write("ran", word)
    os.kill(os.getpid(), signal.SIGKILL)
    return word


def slayer(word: str) -> str:
    """Kill the worker it runs in."""
    Journal.from_env().write("ran", word)
    os.kill(MAIN_PID, signal.SIGKILL)
    time.sleep(GATE_DEADLINE_S)
    return word


def weigh(payload: str) -> int:
    """Return the size of what came."""
    return len(payload)


def sink(values: list[Any]) -> None:
    """Be the body of a chord."""
    Journal.from_env().write("body", *values)


def mourn(task_id: str) -> None:
    """Be an errback, called as a task of its own with the failed task's id."""
    Journal.from_env().write("mourned", task_id)


def once(word: str, *, kind: str = "gate") -> str:
    """Do what must be done once, and return what tells this run from all others."""
    journal, context = Journal.from_env(), task_context()
    journal.write("began", word, context.task_id)
    deadline = time.monotonic() + GATE_DEADLINE_S
    while kind == "gate" and not gate(word).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if kind == "brief":
        time.sleep(BRIEF_S)
    if kind == "fail twice" and journal.count("failed", word) < 2:
        journal.write("failed", word)
        raise ValueError(word)
    journal.write("passed", word)
    return f"{word} by {context.task_id}"


def save(context: TaskContext) -> None:
    """Be the hook of `lasting` and `alasting`."""
    time.sleep(0.1)
    context.save_partial([*(context.partial_result or []), context.attempt])
    Journal.from_env().write("saved", context.args[0])


def lasting(word: str) -> str:
    """Run until the test opens the gate; what it has by then can be saved."""
    Journal.from_env().write("found", word, task_context().partial_result)
    return hold(word)


def stepwise(word: str) -> str:
    """Save step after step until the test opens the gate, or somebody else has the task."""
    journal, context = Journal.from_env(), task_context()
    journal.write("began", word)
    deadline = time.monotonic() + GATE_DEADLINE_S
    while not gate(word).exists() and time.monotonic() < deadline:
        try:
            context.save_partial("a step")
        except StaleFenceError:
            journal.write("told", word)
            raise
        time.sleep(0.05)
    journal.write("passed", word)
    return word


async def alasting(word: str) -> str:
    """Do the same in an event loop."""
    Journal.from_env().write("began", word)
    while not gate(word).exists():
        await asyncio.sleep(0.01)
    return word


def insist(self: RelierTask, word: str) -> str:
    """Fail the first time, and come back for a second."""
    Journal.from_env().write("ran", word, self.request.retries)
    if self.request.retries:
        return word
    raise self.retry(countdown=0.1)


def unprotected(word: str) -> str:
    """Run until the test opens the gate, without protection."""
    Journal.from_env().write("began", word)
    while not gate(word).exists():
        time.sleep(0.01)
    return word


def build(broker: str, **settings: object) -> Celery:
    """Make an app with these tasks; a producer and its workers make the same one."""
    app = Celery("labour", broker=broker, backend=broker, set_as_current=False)
    app.conf.task_default_queue = QUEUE
    app.conf.worker_prefetch_multiplier = int(os.environ.get(PREFETCH, "4"))
    app.conf.worker_soft_shutdown_timeout = float(os.environ.get(SOFT_SHUTDOWN, "0"))
    Relier(app, **settings)
    for function in (note, hold, work, stepwise, weigh, sink, mourn):
        rl_task(app=app, name=function.__name__, shared=False)(function)
    app.task(name="unprotected", acks_late=True, shared=False)(unprotected)
    for lasts in (lasting, alasting):
        rl_task(app=app, name=lasts.__name__, shared=False, on_soft_timeout=save)(lasts)
    for function, returns in ((poison, 2), (slayer, 3)):
        rl_task(app=app, name=function.__name__, max_resurrections=returns, shared=False)(function)
    rl_task(app=app, name="insist", bind=True, shared=False)(insist)
    rl_task(app=app, name="dated", expires=DATED_S, shared=False)(note)
    for name, options in ONCE.items():
        rl_task(app=app, name=name, shared=False, idempotent=True, **options)(once)
    return app


if BROKER in os.environ:
    app = build(os.environ[BROKER])
