"""What the workers of a cluster run: a task that waits until it is let go."""

from __future__ import annotations

import time
from pathlib import Path

from celery import Celery

from relier import Relier, rl_task, task_context
from support.journal import Journal

HELD_AT_MOST_S = 60.0


def load(name: str, gate: str) -> str:
    """Wait for a file to be there."""
    journal = Journal.from_env()
    journal.write("began", name, task_context().attempt)
    deadline_s = time.monotonic() + HELD_AT_MOST_S
    while not Path(gate).exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    journal.write("done", name)
    return name


def build(url: str | None = None) -> Celery:
    """Make the app; the cluster names its server in the environment."""
    made = Celery("dock", set_as_current=False)
    made.conf.worker_prefetch_multiplier = 1
    Relier(made, **({"redis_url": url} if url else {}))
    rl_task(app=made, name="load", shared=False)(load)
    return made


def __getattr__(name: str) -> Celery:
    if name != "app":
        raise AttributeError(name)
    globals()["app"] = made = build()
    return made
