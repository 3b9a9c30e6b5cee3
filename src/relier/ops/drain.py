"""Order workers to drain, and watch what becomes of every task that they hold."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from relier.ops import events, fleet
from relier.ops.events import Event, Feed
from relier.ops.fleet import Worker
from relier.store import claiming, reading
from relier.store.client import Store
from relier.store.fleet import known_queues

COMPLETED, HANDED_OFF, GIVEN_BACK = "completed", "handed off", "given back"

_KINDS = {
    "handed": HANDED_OFF,
    "returned": GIVEN_BACK,
    **dict.fromkeys(
        ("committed", "ended", "next", "continued", "dead", "condemned", "replay"), COMPLETED
    ),
}
_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one task: "completed", "handed off" or "given back"."""

    worker: str
    task_id: str
    name: str
    what: str


@dataclass(slots=True)
class Outcome:
    """What became of all workers that were ordered to drain.

    Args:
        workers: their names.
        completed: tasks that ran to their end.
        handed_off: tasks that were stopped, and go on elsewhere.
        given_back: tasks that had not started.
        lost: tasks that a worker ran at the order and of which nothing is known now.
        unfinished: workers that ended, or still run, without having accounted for all they held.
        took_s: how long it took.
    """

    workers: tuple[str, ...]
    completed: int = 0
    handed_off: int = 0
    given_back: int = 0
    lost: int = 0
    unfinished: tuple[str, ...] = ()
    took_s: float = 0.0

    @property
    def clean(self) -> bool:
        """Return whether every worker accounted for every task."""
        return not self.unfinished and not self.lost


@dataclass(slots=True)
class _Watched:
    worker: Worker
    left: int = 0
    accounted: bool = False
    gone: bool = False
    seen: set[str] = field(default_factory=set)


def named(members: Sequence[Worker], name: str) -> list[Worker]:
    """Return the workers that go by a name: a node name, its part before "@", or a worker id."""
    return [
        member
        for member in members
        if name in (member.name, member.name.partition("@")[0], member.worker_id)
    ]


class Draining:
    """Workers that were ordered to drain.

    Args:
        store: the server.
        members: the workers.
        grace_s: how long running tasks may take; None is each worker's own setting.
        restart: they are to start again then.
    """

    def __init__(
        self,
        store: Store,
        members: Sequence[Worker],
        grace_s: float | None,
        *,
        restart: bool = False,
    ) -> None:
        self._store = store
        self._began_s = time.monotonic()
        # All of them: a worker that has just come up has not said yet what it takes from.
        self._feed = Feed.from_now(store, known_queues(store))
        self._watched = {member.worker_id: _Watched(member) for member in members}
        self._running = {claim.task_id for claim in fleet.claims(store, members) if claim.started}
        grace_ms = "" if grace_s is None else int(grace_s * 1000)
        order = f"{secrets.token_hex(4)}|{grace_ms}"
        for watched in self._watched.values():
            keys, worker_id = store.keys, watched.worker.worker_id
            if not store.run(claiming.drain(keys, worker_id, order, restart=restart)):
                watched.gone = True
        self.outcome = Outcome(tuple(member.name for member in members))

    def follow(self, timeout_s: float) -> Iterator[Fate]:
        """Yield each task's fate as it comes, until every worker has ended or the time is up."""
        until_s = self._began_s + timeout_s
        while True:
            entries = reading.worker_entries(self._store)
            for worker_id in self._watched:
                # Its account goes to a queue that may never have held anything.
                taken_from = entries.get(worker_id, {}).get("queues", "")
                self._feed.include(filter(None, taken_from.split(",")))
            yield from self._news()
            for worker_id, watched in self._watched.items():
                watched.gone = watched.gone or not entries.get(worker_id)
            if all(watched.gone for watched in self._watched.values()):
                break
            if time.monotonic() > until_s:
                break
            time.sleep(_EVERY_S)
        yield from self._news()
        self._close()

    def _news(self) -> Iterator[Fate]:
        fresh = [event for event in self._feed.news() if event.worker in self._watched]
        ids = sorted({event.task_id for event in fresh if event.task_id})
        records = dict(zip(ids, reading.records(self._store, ids), strict=True)) if ids else {}
        for event in fresh:
            watched = self._watched[event.worker]
            if event.kind == events.DRAINED:
                watched.accounted = True
                watched.left = events.read_account(event.detail)["left"]
            elif event.kind in _KINDS and event.claim not in watched.seen:
                watched.seen.add(event.claim)
                name = records.get(event.task_id, {}).get("n", "")
                yield self._fate(watched.worker, event, name)

    def _fate(self, worker: Worker, event: Event, name: str) -> Fate:
        what = _KINDS[event.kind]
        self._running.discard(event.task_id)
        counted = what.replace(" ", "_")
        setattr(self.outcome, counted, getattr(self.outcome, counted) + 1)
        return Fate(worker.name, event.task_id, name, what)

    def _close(self) -> None:
        """Look for what ran at the order and has met no fate that we saw."""
        ids = sorted(self._running)
        found = reading.records(self._store, ids) if ids else []
        self.outcome.lost = sum(not record for record in found)
        self.outcome.unfinished = tuple(
            watched.worker.name
            for watched in self._watched.values()
            if watched.left or not (watched.gone and watched.accounted)
        )
        self.outcome.took_s = time.monotonic() - self._began_s
