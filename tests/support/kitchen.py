"""A kitchen for a whole test module: a server, a worker, an app to dispatch with, a journal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from integration.apps.kitchen import make_app
from relier.store.embedded import EmbeddedServer
from support.journal import Journal
from support.settled import assert_settled
from support.worker import Worker

QUEUES = ("celery", "second")
RESULT_S = 20.0


class Kitchen:
    """What a test of running tasks needs."""

    def __init__(self, app: Any, worker: Worker, client: redis.Redis, journal: Journal) -> None:
        self.app = app
        self.worker = worker
        self.client = client
        self.journal = journal
        self.tasks = app.tasks
        self._words = itertools.count()

    def word(self) -> str:
        """Return a word that no other test uses."""
        return f"word{next(self._words)}"

    def signals(self, task_id: str) -> list[str]:
        """Return the signals that a task's executions sent, in order."""
        return [
            entry.fields[1]
            for entry in self.journal.entries("signal")
            if entry.fields[2] == task_id
        ]


@contextmanager
def open_kitchen(
    server: EmbeddedServer,
    folder: Path,
    *,
    pool: str = "prefork",
    backend: str | None = None,
    protect_all: bool = False,
    options: tuple[str, ...] = (),
    empty: bool = True,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Kitchen]:
    """Start a worker, with settings of its own; at the end nothing may be left in Redis."""
    client = redis.Redis.from_url(server.url)
    if empty:
        client.flushall()
    journal = Journal(folder / "journal.tsv")
    backend = server.url if backend is None else backend
    env = {"BROKER": server.url, "RELIER_HEARTBEAT_TTL": "2", **journal.env, **(settings or {})}
    if backend:
        env["BACKEND"] = backend
    if protect_all:
        env["PROTECT_ALL"] = "1"
    app = make_app(server.url, backend or None, protect_all=protect_all)
    worker = Worker(
        "integration.apps.worker",
        env=env,
        pool=pool,
        concurrency=2,
        queues=QUEUES,
        options=("--without-mingle", "--without-gossip", *options),
        log_dir=folder,
    )
    with client, worker:
        yield Kitchen(app, worker, client, journal)
        assert_settled(client)
        assert worker.running, worker.log()[-3000:]
    # Results of the last test may outlive the server: they are not to cancel subscriptions then.
    consumer = getattr(app.backend, "result_consumer", None)
    if consumer is not None:
        consumer.subscribed_to.clear()
