"""One task's whole way: what the streams still say of it, and what it carries along itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from relier.ops import events, history
from relier.ops.events import Event
from relier.store import reading
from relier.store.client import Store
from relier.store.reading import StreamEvent

BEGINNINGS = ("accepted", "scheduled", "released")

_MOST_AT_HOME = 20_000
_MOST_ELSEWHERE = 40_000
_MOST_SINCE_CLAIMED = 5_000
_LEAST_PER_QUEUE = 200


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose way is asked for.

    Args:
        home: the queue its record or its letter names, or "".
        lines: the history that it carries along.
        since_ms: when its life began: what the streams say of an earlier one is left out.
        hands: a (queue, worker, claim) that holds it now and may have written nothing yet.
    """

    task_id: str
    home: str = ""
    lines: str = ""
    since_ms: int = 0
    hands: tuple[str, str, str] | None = None


def of_task(store: Store, subject: Subject, queues: Sequence[str]) -> tuple[Event, ...]:
    """Return a task's timeline, oldest first, as far as it is remembered.

    Args:
        queues: all that are known; it may have been published to several.
    """
    kept = history.read(subject.lines, subject.task_id)
    own, batches = _from_streams(store, subject, kept, queues)
    merged = {(e.queue, e.stream_id, e.kind): e for e in (*own, *kept)}
    moves = list(merged.values())
    moves += joined(batches, moves, subject)
    return tuple(sorted(named(store, moves), key=lambda event: event.place))


def joined(batches: Iterable[Event], moves: Iterable[Event], subject: Subject) -> list[Event]:
    """Return when a task was claimed: whose claim it was is told by what it did under it."""
    wanted = {(e.queue, e.worker, e.claim) for e in moves if e.worker and e.claim.isdigit()}
    if subject.hands:
        wanted.add(subject.hands)
    found: dict[tuple[str, str, str], Event] = {}
    for batch in batches:
        for each in wanted - found.keys():
            if each[:2] == (batch.queue, batch.worker) and _holds(batch, each[2]):
                found[each] = replace(batch, task_id=subject.task_id, claim=each[2], detail="")
    return list(found.values())


def claims_of(store: Store, moves: Sequence[Event], subject: Subject) -> list[Event]:
    """Return when a task was claimed for what it does now; it may be a while ago."""
    found: list[Event] = []
    for started in (event for event in moves if event.kind == "started"):
        about = reading.events_about(
            store,
            started.queue,
            subject.task_id,
            oldest_ms=subject.since_ms,
            most=_MOST_SINCE_CLAIMED,
        )
        found += joined(_read(started.queue, about.batches), [started], subject)
    return found


def _holds(batch: Event, claim: str) -> bool:
    return events.number(batch.claim) <= int(claim) <= events.number(batch.detail)


def named(store: Store, moves: Sequence[Event]) -> list[Event]:
    """Give each event its worker's name, though the worker may be gone."""
    names = {event.worker: event.worker_name for event in moves if event.worker_name}
    unnamed = {event.worker for event in moves if event.worker} - names.keys()
    if unnamed:
        names |= reading.worker_names(store, unnamed)
    return [
        event if event.worker_name else replace(event, worker_name=names.get(event.worker, ""))
        for event in moves
    ]


def _from_streams(
    store: Store, subject: Subject, kept: Sequence[Event], queues: Sequence[str]
) -> tuple[list[Event], list[Event]]:
    """Read the queues that the task is known in; if they do not say how it began, others too."""
    # The record's time is rounded, an event's is cut.
    oldest_ms = max(subject.since_ms - 1, 0)
    home = dict.fromkeys(filter(None, [subject.home, *(event.queue for event in kept)]))
    own: list[Event] = []
    batches: list[Event] = []

    def look(queue: str, most: int) -> None:
        about = reading.events_about(store, queue, subject.task_id, oldest_ms=oldest_ms, most=most)
        own.extend(_read(queue, about.own))
        batches.extend(_read(queue, about.batches))

    for queue in home:
        look(queue, _MOST_AT_HOME)
    elsewhere = [queue for queue in queues if queue not in home]
    if elsewhere and not any(event.kind in BEGINNINGS for event in own):
        share = max(_MOST_ELSEWHERE // len(elsewhere), _LEAST_PER_QUEUE)
        for queue in elsewhere[: _MOST_ELSEWHERE // _LEAST_PER_QUEUE]:
            look(queue, share)
    return own, batches


def _read(queue: str, found: Iterable[StreamEvent]) -> list[Event]:
    return [events.event_of(queue, each) for each in found]
