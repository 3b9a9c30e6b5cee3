"""One fault's scene: a server, an app that dispatches, workers, and the laws at its end."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from faults.apps import labour
from relier.store.keys import Keys
from support.journal import Journal
from support.wait import wait_for
from support.worker import Worker

SOON_S = 30.0
"""How long a loaded machine may take for what takes a second."""

FULL = 5
"""A worker of two processes claims no more while it holds so many."""


class Scene:
    """A producer and its workers on one server.

    Args:
        url: the server as the test and its producer see it.
        folder: where the journal, the gates and the workers' logs go.
        stack: ends what the scene starts.
    """

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self.url = url
        self.folder = folder
        self.queue = labour.QUEUE
        self.keys = Keys()
        self.journal = Journal(folder / "journal.tsv")
        self.redis: redis.Redis = stack.enter_context(
            redis.Redis.from_url(url, decode_responses=True, encoding_errors="replace")
        )
        self.app: Celery = labour.build(url)
        self.accepted: list[str] = []
        self.only_worker: Worker
        self._stack = stack
        stack.callback(self._forget_results)

    def worker(self, name: str, *, broker: str = "", wait_ready: bool = True, **how: Any) -> Worker:
        """Start a worker; `broker` when it reaches the server by another way."""
        worker = Worker(
            how.pop("app", "faults.apps.labour"),
            env={
                labour.BROKER: broker or self.url,
                "RELIER_HEARTBEAT_TTL": "1.5",
                **self.journal.env,
                **how.pop("env", {}),
            },
            name=name,
            log_dir=self.folder,
            **how,
        )
        self._stack.push(worker.__exit__)
        worker.start(wait_ready=wait_ready)
        return worker

    def _forget_results(self) -> None:
        # A failed test's traceback keeps results alive; they would unsubscribe from a dead server.
        self.app.backend.result_consumer.subscribed_to.clear()

    # -- dispatch

    def push(self, task: str, *args: Any) -> str:
        """Dispatch, and remember the task for the account."""
        task_id: str = self.app.tasks[task].push(*args).id
        self.accepted.append(task_id)
        return task_id

    def let(self, *words: str) -> None:
        """Open the gates of these tasks."""
        for word in words:
            (self.folder / f"gate-{word}").touch()

    # -- what is so

    def record(self, task_id: str) -> dict[str, str]:
        """Return a task's record."""
        return dict(self.redis.hgetall(self.keys.task(task_id)))

    def returns(self, task_id: str) -> tuple[int, int]:
        """Return how often a task was (blamed, interrupted)."""
        record = self.record(task_id)
        return int(record.get("b", 0)), int(record.get("i", 0))

    def meta(self, task_id: str) -> str | None:
        """Return what the result backend holds of a task, as it is stored."""
        return self.redis.get(f"celery-task-meta-{task_id}")

    def state(self, task_id: str) -> str:
        """Return Celery's state of a task."""
        return str(self.app.AsyncResult(task_id).state)

    def members(self) -> set[str]:
        """Return the ids of the fleet's workers."""
        return set(self.redis.smembers(self.keys.workers))

    def member(self, worker: Worker) -> str:
        """Return the id under which a worker goes now."""
        mine = [
            each
            for each in self.members()
            if self.redis.hget(self.keys.worker(each), "pid") == str(worker.pid)
        ]
        assert len(mine) == 1, f"{worker.hostname} has the entries {mine}"
        return mine[0]

    def claimed(self) -> dict[str, str]:
        """Return every claim, as (worker, number) -> parcel."""
        claims = {}
        for key in self.redis.scan_iter(self.keys.claims(self.queue, "*"), count=1000):
            for field, parcel in self.redis.hgetall(key).items():
                if field.isdigit():
                    claims[f"{key} {field}"] = parcel
        return claims

    def waiting(self) -> int:
        """Return how many messages wait in the queue's first list."""
        return int(self.redis.llen(self.queue))

    def events(self, *kinds: str) -> Counter[str]:
        """Count the events of these kinds by task."""
        entries = self.redis.xrange(self.keys.events(self.queue))
        return Counter(fields["i"] for _, fields in entries if fields["k"] in kinds)

    def letters(self) -> dict[str, dict[str, str]]:
        """Return the dead letters by id."""
        ids = self.redis.zrange(self.keys.dead(self.queue), 0, -1)
        return {each: self.redis.hgetall(self.keys.dead_letter(self.queue, each)) for each in ids}

    def letters_raw(self) -> dict[bytes, dict[bytes, bytes]]:
        """Return the dead letters byte by byte."""
        with redis.Redis.from_url(self.url) as raw:
            ids = raw.zrange(self.keys.dead(self.queue), 0, -1)
            names = {each: self.keys.dead_letter(self.queue, each.decode()) for each in ids}
            return {each: raw.hgetall(name) for each, name in names.items()}

    # -- waiting

    def wait(self, condition: Callable[[], Any], what: str, deadline_s: float = SOON_S) -> Any:
        """Wait for a condition; a failure shows the journal and the places of the tasks."""
        return wait_for(condition, deadline_s, lambda: f"{what}\n{self.describe()}")

    def began(self, *words: str, times: int = 1) -> None:
        """Wait until these `hold` or `work` tasks have begun so often."""
        self.wait(
            lambda: all(self.journal.count("began", word) >= times for word in words),
            f"{words} to begin {times} times",
        )

    def wait_journal(self, *fields: object, times: int = 1) -> None:
        """Wait until the journal holds so many lines that begin so."""
        self.wait(lambda: self.journal.count(*fields) >= times, f"{fields}, {times} times")

    def wait_claimed(self, count: int) -> None:
        """Wait until at least so many messages are in workers' hands."""
        self.wait(lambda: len(self.claimed()) >= count, f"{count} claims")

    def describe(self) -> str:
        """Tell where everything is."""
        lines = ["  ".join(entry.fields) for entry in self.journal.entries()]
        places = {
            "waiting": self.waiting(),
            "claimed": len(self.claimed()),
            "scheduled": self.redis.zcard(self.keys.scheduled(self.queue)),
            "replay": self.redis.llen(self.keys.replay(self.queue)),
            "dead": sorted(self.letters()),
            "states": Counter(self.record(each).get("s") for each in self.accepted),
        }
        events = [
            " ".join(f"{key}={value[:40]}" for key, value in fields.items())
            for _, fields in self.redis.xrange(self.keys.events(self.queue))[-40:]
        ]
        return "\n".join(["journal:", *lines, f"places: {places}", "events:", *events])

    # -- the laws

    def settle(
        self, ids: Iterable[str] = (), *, queued: int = 0, deadline_s: float = SOON_S
    ) -> None:
        """Wait until every accepted task has ended or died, and hold the account to the laws.

        Conservation: nothing is left anywhere, nothing is missing. One commit: every task ended
        exactly once.

        Args:
            ids: these tasks only; the others are the `queued` messages.
            queued: messages that are still to wait.
            deadline_s: how long it may take.
        """
        ids = [*ids] or self.accepted
        self.wait(
            lambda: all(self.record(each).get("s") in ("e", "d") for each in ids),
            "every task to end",
            deadline_s,
        )
        self.wait(lambda: not self.claimed(), "claims to be freed")
        assert self.waiting() == queued, self.describe()
        assert self.redis.zcard(self.keys.scheduled(self.queue)) == 0, self.describe()
        assert self.redis.llen(self.keys.replay(self.queue)) == 0, self.describe()
        ends = self.events("ended", "dead")
        assert {each: ends[each] for each in ids} == dict.fromkeys(ids, 1), self.describe()


def kill(pid: int) -> None:
    """Kill one process."""
    os.kill(pid, signal.SIGKILL)
