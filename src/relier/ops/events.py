"""What happened: the lifecycle events that the scripts write, one per move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from relier.store import reading
from relier.store.client import Store
from relier.store.reading import StreamEvent

MOST_PER_STREAM = 12_000
"""A stream is trimmed to about 10,000 events."""

LATER_LETTER = "~"
"""Between a task's id and what tells the letter of a later death from one that is still there."""

DRAINED = "drained"
"""A worker's last event: its account, under no task's name."""

_PAGE = 1000

WORDS = {
    "accepted": "accepted",
    "scheduled": "scheduled",
    "started": "started",
    "committed": "committed",
    "ended": "ended",
    "next": "published its next generation",
    "returned": "went back unstarted",
    "handed": "handed over by a worker that stopped",
    "disowned": "went back: the server had forgotten how it ended",
    "requeued": "resurrected",
    "replay": "its consequences are to be sent again",
    "exhausted": "gave up: died too often",
    "condemned": "stopped",
    "overtime": "ran over its soft timeout",
    "deferred": "put off",
    "hastened": "made due at once",
    "duplicate": "a copy was dropped",
    "revoked": "revoked before it began",
    "dead": "became a dead letter",
    "released": "released from the dead letters",
    "removed": "removed from the dead letters",
}
"""How each kind reads in a timeline."""


@dataclass(frozen=True, slots=True)
class Event:
    """One move of one task.

    Args:
        at_ms: on the server's clock.
        kind: see ``WORDS``.
        worker: whose claim it was, or "".
        detail: the state, the reason, or the fence, by kind.
    """

    at_ms: int
    queue: str
    kind: str
    task_id: str
    worker: str
    claim: str
    detail: str

    @property
    def recovery(self) -> bool:
        """Return whether a task came back from a dead process by it."""
        return self.kind == "requeued" or (self.kind == "scheduled" and bool(self.worker))

    @property
    def words(self) -> str:
        """Return what happened, for a timeline."""
        if self.kind == "scheduled" and self.worker:
            return "resurrected, to run again after a pause"
        return WORDS.get(self.kind, self.kind)


class Feed:
    """The events of some queues as they come.

    Args:
        store: the server.
        queues: whose events.
    """

    def __init__(self, store: Store, queues: Sequence[str]) -> None:
        self._store = store
        self._after = dict.fromkeys(queues, "0")

    @classmethod
    def from_now(cls, store: Store, queues: Sequence[str]) -> Feed:
        """Return a feed that leaves out what has happened so far."""
        feed = cls(store, queues)
        for queue in queues:
            for newest in reading.events_before(store, queue, count=1):
                feed._after[queue] = newest.stream_id
        return feed

    def include(self, queues: Iterable[str]) -> None:
        """Tell of these queues, too, from the first event that they have."""
        for queue in queues:
            self._after.setdefault(queue, "0")

    def news(self) -> list[Event]:
        """Return what has happened since the last call, oldest first."""
        fresh: list[Event] = []
        for queue in self._after:
            while found := reading.events_after(self._store, queue, self._after[queue], _PAGE):
                fresh += [_event(queue, each) for each in found]
                self._after[queue] = found[-1].stream_id
        return sorted(fresh, key=lambda event: event.at_ms)


def read_account(detail: str) -> dict[str, int]:
    """Return what a ``drained`` event says: tasks completed, handed_over, given_back, left."""
    names = ("completed", "handed_over", "given_back", "left")
    return dict(zip(names, map(int, detail.split("|")), strict=True))


def of_task(
    store: Store, queues: Sequence[str], task_id: str, *, since_ms: int = 0
) -> tuple[Event, ...]:
    """Return a task's timeline, oldest first, as far as the trimmed streams reach back."""
    found = [
        event
        for queue in queues
        for event in _backwards(store, queue, since_ms, MOST_PER_STREAM)
        if event.task_id.partition(LATER_LETTER)[0] == task_id
    ]
    # Several events may share a millisecond: turned over first, they keep their order in the sort.
    found.reverse()
    return tuple(sorted(found, key=lambda event: event.at_ms))


def latest(store: Store, queues: Sequence[str], most_per_queue: int) -> list[Event]:
    """Return the latest events of some queues, newest first."""
    found = [e for queue in queues for e in _backwards(store, queue, 0, most_per_queue)]
    return sorted(found, key=lambda event: event.at_ms, reverse=True)


def _backwards(store: Store, queue: str, oldest_ms: int, most: int) -> Iterator[Event]:
    before = "+"
    while most > 0:
        count = min(_PAGE, most)
        found = reading.events_before(store, queue, before=before, oldest_ms=oldest_ms, count=count)
        for each in found:
            yield _event(queue, each)
        if len(found) < count:
            return
        before, most = found[-1].stream_id, most - count


def _event(queue: str, found: StreamEvent) -> Event:
    fields = found.fields
    return Event(
        at_ms=found.at_ms,
        queue=queue,
        kind=fields.get("k", ""),
        task_id=fields.get("i", ""),
        worker=fields.get("w", ""),
        claim=fields.get("c", ""),
        detail=fields.get("r", ""),
    )
