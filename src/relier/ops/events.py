"""What happened: the lifecycle events that the scripts write, one per move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from relier.store import reading
from relier.store.client import Store
from relier.store.reading import StreamEvent

LATER_LETTER = "~"
"""Between a task's id and what tells the letter of a later death from one that is still there."""

DRAINED = "drained"
"""A worker's last event: its account, under no task's name."""

CLAIMED = "claimed"
"""The event of a whole batch, under no task's name: ``claim`` to ``detail`` are its claims."""

OMITTED = "omitted"
"""No event, but what stands in a long history for ``detail`` of them."""

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """One move of one task.

    Args:
        at_ms: on the server's clock.
        kind: as the script that made the move calls it.
        worker: whose claim it was, or "".
        detail: the outcome, the reason, or the task's name, by kind.
        fence, attempt: of the run that it ended or began; 0 when there was none.
        worker_name: Celery's name of the worker, when it is known.
        stream_id: its id in the queue's stream.
    """

    at_ms: int
    queue: str
    kind: str
    task_id: str
    worker: str
    claim: str
    detail: str
    fence: int = 0
    attempt: int = 0
    worker_name: str = ""
    stream_id: str = ""

    @property
    def recovery(self) -> bool:
        """Return whether a task came back from a dead process by it."""
        return self.kind == "requeued" or (self.kind == "scheduled" and bool(self.worker))

    @property
    def place(self) -> tuple[int, int]:
        """Return what orders the events of one queue."""
        return self.at_ms, int(self.stream_id.partition("-")[2] or 0)


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
                fresh += [event_of(queue, each) for each in found]
                self._after[queue] = found[-1].stream_id
        return sorted(fresh, key=lambda event: event.at_ms)


def read_account(detail: str) -> dict[str, int]:
    """Return what a ``drained`` event says: tasks completed, handed_over, given_back, left."""
    names = ("completed", "handed_over", "given_back", "left")
    return dict(zip(names, map(int, detail.split("|")), strict=True))


def latest(store: Store, queues: Sequence[str], most_per_queue: int) -> list[Event]:
    """Return the latest events of some queues, newest first."""
    found = [e for queue in queues for e in _backwards(store, queue, most_per_queue)]
    return sorted(found, key=lambda event: event.at_ms, reverse=True)


def _backwards(store: Store, queue: str, most: int) -> Iterator[Event]:
    before = "+"
    while most > 0:
        count = min(_PAGE, most)
        found = reading.events_before(store, queue, before=before, count=count)
        for each in found:
            yield event_of(queue, each)
        if len(found) < count:
            return
        before, most = found[-1].stream_id, most - count


def event_of(queue: str, found: StreamEvent) -> Event:
    """Read an entry of a queue's stream."""
    fields = found.fields
    kind, detail, fence = fields.get("k", ""), fields.get("r", ""), fields.get("f")
    if fence is None and kind == "started":  # as scripts before these wrote it
        fence, detail = detail, ""
    return Event(
        at_ms=found.at_ms,
        queue=queue,
        kind=kind,
        task_id=fields.get("i", ""),
        worker=fields.get("w", ""),
        claim=fields.get("c", ""),
        detail=detail,
        fence=number(fence),
        attempt=number(fields.get("a")),
        stream_id=found.stream_id,
    )


def number(text: str | None) -> int:
    """Return a whole number, 0 for what is none."""
    return int(text) if text and text.isascii() and text.isdigit() else 0
