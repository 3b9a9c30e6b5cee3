"""A task that writes into a database of its own, fenced; see docs/patterns/fencing.md."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from celery import Celery

from relier import Relier, StaleFenceError, rl_task, task_context
from support.journal import Journal

BROKER = "RELIER_TEST_BROKER"
DATABASE = "RELIER_TEST_DATABASE"
GATE = "RELIER_TEST_GATE"
GATE_DEADLINE_S = 60.0

SCHEMA = "CREATE TABLE invoice (id TEXT PRIMARY KEY, total INTEGER, fence INTEGER NOT NULL)"
UPDATE = "UPDATE invoice SET total = :total, fence = :fence WHERE id = :id AND fence < :fence"


def settle(invoice_id: str) -> str:
    """Compute a total for a while, write it down, and say which attempt did."""
    ctx, journal = task_context(), Journal.from_env()
    journal.write("began", ctx.attempt, ctx.fence)
    deadline = time.monotonic() + GATE_DEADLINE_S
    while not Path(os.environ[GATE]).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with closing(sqlite3.connect(os.environ[DATABASE])) as db, db:
        values = {"id": invoice_id, "total": ctx.attempt, "fence": ctx.fence}
        journal.write("updated", ctx.attempt, db.execute(UPDATE, values).rowcount)
    try:
        ctx.save_partial({"by": ctx.attempt})
    except StaleFenceError as refused:
        journal.write("refused", ctx.attempt, refused)
    return f"attempt {ctx.attempt}"


def build(broker: str) -> Celery:
    """Make an app with this task."""
    app = Celery("ledger", broker=broker, backend=broker, set_as_current=False)
    Relier(app, env="development")
    rl_task(app=app, name="settle", shared=False)(settle)
    return app


if BROKER in os.environ:
    app = build(os.environ[BROKER])
