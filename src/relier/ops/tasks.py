"""Where tasks are: a listing by place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from relier.ops import events, fleet, inflight, messages
from relier.ops.events import Event
from relier.ops.messages import Message
from relier.ops.places import CLAIMED, DEAD, ENDED, QUEUED, REPLAY, RUNNING, SCHEDULED, STATES
from relier.store import fleet as store_fleet
from relier.store import reading
from relier.store.client import Store
from relier.store.reading import HeldClaim, Waiting

_EVENTS_PER_ROW = 6


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One line of a listing.

    Args:
        at_ms: when it was accepted, started, due or ended, by state; None when not known.
    """

    task_id: str
    name: str
    state: str
    queue: str
    worker: str
    attempt: int
    returns: int
    at_ms: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A bounded listing.

    Args:
        totals: how many tasks there are by place (ended ones are not counted: they leave).
        limit: the most rows that were asked for.
    """

    rows: tuple[TaskRow, ...]
    totals: dict[str, int]
    limit: int
    now_ms: int


def listing(
    store: Store, *, states: Sequence[str] = (), queue: str | None = None, limit: int = 50
) -> Listing:
    """List tasks place by place, up to ``limit`` in all.

    Args:
        states: which places; all by default.
        queue: only this queue; None for all that are known.
    """
    names = [queue] if queue is not None else store_fleet.known_queues(store)
    members = fleet.workers(store)
    workers = {member.worker_id: member.name for member in members}
    held = [claim for claim in fleet.claims(store, members) if claim.queue in names]
    now_ms = reading.now_ms(store)
    depths = reading.depths(store, names)
    sources: dict[str, Callable[[int], list[TaskRow]]] = {
        RUNNING: lambda n: _held_rows(store, held, workers, now_ms, n, started=True),
        CLAIMED: lambda n: _held_rows(store, held, workers, now_ms, n, started=False),
        REPLAY: lambda n: _message_rows(store, names, reading.replays, REPLAY, n),
        QUEUED: lambda n: _message_rows(store, names, reading.waiting, QUEUED, n),
        SCHEDULED: lambda n: _message_rows(store, names, reading.scheduled, SCHEDULED, n),
        DEAD: lambda n: _dead_rows(store, names, n),
        ENDED: lambda n: _ended_rows(store, names, workers, n),
    }
    rows: list[TaskRow] = []
    for state in STATES:
        room = limit - len(rows)
        if room > 0 and (not states or state in states):
            rows += sources[state](room)[:room]
    running = sum(claim.started for claim in held)
    totals = {
        RUNNING: running,
        CLAIMED: len(held) - running,
        REPLAY: sum(depth.replay for depth in depths.values()),
        QUEUED: sum(depth.waiting for depth in depths.values()),
        SCHEDULED: sum(depth.scheduled for depth in depths.values()),
        DEAD: sum(depth.dead for depth in depths.values()),
    }
    return Listing(tuple(rows), totals, limit, now_ms)


def _held_rows(
    store: Store,
    held: list[HeldClaim],
    workers: dict[str, str],
    now_ms: int,
    limit: int,
    *,
    started: bool,
) -> list[TaskRow]:
    chosen = [claim for claim in held if claim.started is started][:limit]
    return [
        TaskRow(
            task.task_id,
            task.name,
            RUNNING if started else CLAIMED,
            task.queue,
            task.worker,
            task.attempt,
            task.returns,
            None if task.duration_ms is None else now_ms - task.duration_ms,
        )
        for task in inflight.describe(store, chosen, workers, now_ms)
    ]


def _message_rows(
    store: Store,
    queues: list[str],
    source: Callable[[Store, str, int], Iterator[Waiting]],
    state: str,
    limit: int,
) -> list[TaskRow]:
    rows: list[TaskRow] = []
    for queue in queues:
        found = list(source(store, queue, limit - len(rows)))
        read = [messages.read(each.raw) for each in found]
        known = [message.task_id if message else "" for message in read]
        for each, message, record in zip(found, read, reading.records(store, known), strict=True):
            rows.append(_message_row(each, message, record, state, queue))
        if len(rows) >= limit:
            break
    return rows


def _message_row(
    each: Waiting, message: Message | None, record: dict[str, str], state: str, queue: str
) -> TaskRow:
    at_ms = each.due_ms or int(record.get("at") or 0)
    return TaskRow(
        message.task_id if message else "(unreadable)",
        message.name if message else "",
        state,
        queue,
        "",
        int(record.get("a") or 0),
        int(record.get("b") or 0) + int(record.get("i") or 0),
        at_ms or None,
    )


def _dead_rows(store: Store, queues: list[str], limit: int) -> list[TaskRow]:
    rows = []
    for queue in queues:
        found = reading.dead(store, queue, limit)
        summaries = reading.letter_summaries(store, [(queue, each) for each, _ in found])
        rows += [
            TaskRow(letter_id, summary.name, DEAD, queue, "", 0, 0, at_ms)
            for (letter_id, at_ms), summary in zip(found, summaries, strict=True)
        ]
    return sorted(rows, key=lambda row: row.at_ms or 0, reverse=True)[:limit]


def _ended_rows(
    store: Store, queues: list[str], workers: dict[str, str], limit: int
) -> list[TaskRow]:
    """Return the tasks that ended last, as the event streams remember them."""
    ended: dict[str, Event] = {}
    for event in events.latest(store, queues, limit * _EVENTS_PER_ROW):
        if event.kind == "ended" and len(ended) < limit:
            ended.setdefault(event.task_id, event)
    records = reading.records(store, list(ended))
    return [
        TaskRow(
            event.task_id,
            record.get("n", ""),
            ENDED,
            event.queue,
            workers.get(event.worker, event.worker),
            int(record.get("a") or 0),
            int(record.get("b") or 0) + int(record.get("i") or 0),
            event.at_ms,
        )
        for event, record in zip(ended.values(), records, strict=True)
    ]
