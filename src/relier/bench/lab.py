"""Where the scenarios work: one server, one folder, apps of each flavour, and real workers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from celery import Celery

import relier
from relier.bench import workload
from relier.bench.journal import Journal
from relier.bench.waiting import wait_for
from relier.bench.workers import Worker
from relier.store.address import Address
from relier.store.broker import Broker
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys

_SOURCES = str(Path(relier.__file__).parents[1])

_REST_DEADLINE_S = 30.0
_AT_WORK = (
    "aof_rewrite_in_progress",
    "aof_rewrite_scheduled",
    "aof_pending_bio_fsync",
    "lazyfree_pending_objects",
)


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Args:
        repeats: how often each interleaved pair is measured.
        kills: workers and pool processes to kill, each.
        calls: dispatches per repeat.
        bulk: messages per bulk dispatch.
        drain: empty tasks per drain.
        claims: claimed tasks whose memory is measured.
        timed: scheduled tasks whose lateness is measured, per repeat.
        scheduled: scheduled tasks that wait beside an idle worker.
        queued, dead, workers: how much there is when the commands are tried.
        delivery_runs: runs of 500 tasks and 5 SIGKILLs.
        spread_s: within how long those of a repeat come due.
        idle_s: how long a worker is left alone before it is weighed.
        patience_s: how long to wait for what vanilla Celery may never do.
    """

    repeats: int = 5
    kills: int = 30
    calls: int = 1_000
    bulk: int = 20_000
    drain: int = 5_000
    claims: int = 10_000
    timed: int = 200
    scheduled: int = 100_000
    queued: int = 1_000_000
    dead: int = 100_000
    workers: int = 1_000
    delivery_runs: int = 5
    spread_s: float = 5.0
    idle_s: float = 3.0
    patience_s: float = 10.0


QUICK = Effort(
    repeats=3,
    kills=3,
    calls=300,
    bulk=10_000,
    drain=2_000,
    claims=2_000,
    timed=50,
    scheduled=5_000,
    queued=100_000,
    dead=10_000,
    workers=100,
    delivery_runs=1,
    patience_s=3.0,
)


class Lab:
    """A context manager: a server, a working folder, and everything that runs in them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._workers: list[Worker] = []
        self._apps: dict[str, Celery] = {}
        self._names = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            # Defaults are measured: the user's .env and RELIER_* variables stay outside.
            stack.enter_context(chdir(self.folder))
            stack.enter_context(_without_settings())
            self.server = stack.enter_context(EmbeddedServer())
            self.store = Store(Address.parse(self.server.url), Keys())
            stack.callback(self.store.close)
            stack.callback(self._kill_workers)
            stack.callback(self._close_apps)
            self._stack = stack.pop_all()
        self.journal = Journal(self.folder / "journal-0.tsv")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def fresh(self) -> None:
        """Kill every worker, empty the server, wait until it rests, and begin a new journal."""
        self._kill_workers()
        self.store.redis.execute_command("FLUSHALL", "SYNC")
        wait_for(self._server_rests, _REST_DEADLINE_S, "the server has rewritten its log")
        self._names += 1
        self.journal = Journal(self.folder / f"journal-{self._names}.tsv")

    def _server_rests(self) -> bool:
        """Return whether nothing of what was before still keeps the server busy."""
        info = self.store.redis.info("everything")
        return not any(info.get(field) for field in _AT_WORK)

    def app(self, flavour: str) -> Celery:
        """Return this process's app of a flavour, to dispatch with."""
        if flavour not in self._apps:
            self._apps[flavour] = workload.make_app(flavour, self.server.url)
        return self._apps[flavour]

    def task(self, flavour: str, name: str) -> Any:
        """Return one of the bench's tasks."""
        return self.app(flavour).tasks[f"bench.{name}"]

    @property
    def broker(self) -> Broker:
        """The broker of the app under relier."""
        return self.broker_of(workload.RELIER)

    def broker_of(self, flavour: str) -> Broker:
        """Return the broker of an app of a flavour under relier."""
        broker: Broker = self.app(flavour).relier.broker
        return broker

    def worker(self, flavour: str, *, concurrency: int, loglevel: str = "INFO") -> Worker:
        """Return a worker that is not started yet; the lab kills it at the latest."""
        self._names += 1
        env = {
            **os.environ,
            # The very relier that measures is the one that is measured.
            "PYTHONPATH": os.pathsep.join(filter(None, [_SOURCES, os.environ.get("PYTHONPATH")])),
            workload.FLAVOUR_VARIABLE: flavour,
            workload.URL_VARIABLE: self.server.url,
            workload.JOURNAL_VARIABLE: str(self.journal.path),
        }
        name = f"{flavour}-{self._names}"
        worker = Worker(self.folder, name, env, concurrency=concurrency, loglevel=loglevel)
        self._workers.append(worker)
        return worker

    def gate(self) -> Path:
        """Return a file that is not there yet; ``hold`` tasks wait for it."""
        self._names += 1
        return self.folder / f"gate-{self._names}"

    def results(self, ids: list[str]) -> int:
        """Return how many of these tasks have a result."""
        return int(self.store.redis.exists(*(f"celery-task-meta-{each}" for each in ids)))

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.kill_tree()
        self._workers.clear()

    def _close_apps(self) -> None:
        for app in self._apps.values():
            app.backend.result_consumer.stop()
            app.close()


@contextmanager
def _without_settings() -> Iterator[None]:
    """Take relier's variables out of the environment for a while."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("RELIER_")}
    try:
        yield
    finally:
        os.environ.update(taken)
