"""The tasks of `labour` and some that end, or are ended, in strange ways."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from celery import Celery, signals
from celery.backends.redis import RedisBackend

from faults.apps import labour
from faults.apps.labour import BROKER, GATE_DEADLINE_S, gate
from relier import rl_task
from support.journal import Journal

DISTANT = "RELIER_TEST_DISTANT"
"""Names a result backend on a server of its own."""
IGNORANT = "RELIER_TEST_IGNORANT"
"""Makes a worker that does not know the task `note`."""
STALLED = "stalled "
"""How the words begin whose `note` is long on its way, the first time."""
LIMIT_S = 1
_BRIEFLY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}


def brief(word: str) -> str:
    """End at once; what follows from it may take long."""
    Journal.from_env().write("began", word)
    return word


def broken(word: str) -> None:
    """Fail with the name of a file that is not UTF-8."""
    Journal.from_env().write("began", word)
    raise ValueError("no such file: \udcff")


async def cancelled(word: str) -> None:
    """Let a cancellation of one's own out."""
    Journal.from_env().write("began", word)
    raise asyncio.CancelledError


async def linger(word: str) -> None:
    """Run far beyond the soft time limit, if allowed to."""
    Journal.from_env().write("began", word)
    while not gate(word).exists():
        await asyncio.sleep(0.01)
    Journal.from_env().write("went on", word)


async def visit(word: str) -> str:
    """Run an event loop until the gate opens, and some turns more."""
    Journal.from_env().write("began", word)
    deadline = time.monotonic() + GATE_DEADLINE_S
    while not gate(word).exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    for _ in range(10):
        await asyncio.sleep(0.01)
    return word


def _stall(sender: str | None = None, body: Any = None, **_: Any) -> None:
    """Hold the first `note` of a stalled word until the gate opens, as a slow link would."""
    word = str(body[0][0]) if sender == "note" and body[0] else ""
    if word.startswith(STALLED):
        journal = Journal.from_env()
        first = not journal.count("sending", word)
        journal.write("sending", word)
        deadline = time.monotonic() + GATE_DEADLINE_S
        while first and not gate(word).exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def build(broker: str, **settings: object) -> Celery:
    """Make an app with these tasks; a producer and its workers make the same one."""
    app = labour.build(broker, **settings)
    app.conf.result_backend_transport_options = {"retry_policy": _BRIEFLY}
    own: dict[Any, dict[str, Any]] = {
        brief: {},
        broken: {},
        cancelled: {},
        linger: {"soft_time_limit": LIMIT_S},
        visit: {},
    }
    for function, options in own.items():
        rl_task(app=app, name=function.__name__, shared=False, **options)(function)
    distant = RedisBackend(url=os.environ.get(DISTANT, broker), app=app)
    rl_task(app=app, name="distant", shared=False, track_started=True, backend=distant)(labour.note)
    app.task(name="plain", shared=False)(labour.note)
    return app


if BROKER in os.environ:
    app = build(os.environ[BROKER])
    signals.before_task_publish.connect(_stall)
    if IGNORANT in os.environ:
        app.finalize()
        del app.tasks["note"]
