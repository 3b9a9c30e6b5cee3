"""Where tasks are: a listing by place, and everything known of one task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from relier.ops import events, fleet, inflight, messages, saved
from relier.ops.events import Event
from relier.ops.messages import Message, Signature
from relier.ops.saved import Saved
from relier.protocol.envelope import Keyring
from relier.store import fleet as store_fleet
from relier.store import reading
from relier.store.client import Store
from relier.store.reading import HeldClaim, Waiting

RUNNING, CLAIMED, REPLAY = "running", "claimed", "replay"
QUEUED, SCHEDULED, DEAD, ENDED = "queued", "scheduled", "dead", "ended"
STATES = (RUNNING, CLAIMED, REPLAY, QUEUED, SCHEDULED, DEAD, ENDED)
"""The places of a task, in the order in which they are listed."""

_SEARCHED = 2000
_EVENTS_PER_ROW = 6
_TERMINAL = ("e", "d")


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


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """Everything known of one task.

    Args:
        state: one of ``STATES``, or "committed", or "unknown" for a record without its message.
        where: the same in words.
        life: which life of its id; an ended or dead one that is dispatched anew begins another.
        args, kwargs: as its producer printed them; "" once the message is gone.
        blame: deaths of its own process; ``interruptions``: of a whole worker with neighbours.
        schema_version: of its arguments; 0 once its message is gone.
        signature: of its message: who vouches for it; None once the message is gone.
        result: Celery's state of the result, or "" when it is not in this database.
        reason, error: of a dead letter, else "".
        checkpoint: what it saved last, or None.
    """

    task_id: str
    name: str
    state: str
    where: str
    queue: str
    worker: str
    fence: int
    attempt: int
    blame: int
    interruptions: int
    retries: int
    life: int
    accepted_ms: int | None
    started_ms: int | None
    due_ms: int | None
    args: str
    kwargs: str
    schema_version: int
    signature: Signature | None
    result: str
    result_value: str
    reason: str
    error: str
    checkpoint: Saved | None
    timeline: tuple[Event, ...]
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


def inspect(store: Store, task_id: str, keyring: Keyring) -> TaskDetail | None:
    """Find out everything about one task; None when nothing is known of it.

    Args:
        keyring: the keys to verify its message with.
    """
    record = reading.records(store, [task_id])[0]
    queues = store_fleet.known_queues(store)
    since_ms = int(record.get("at") or 0)
    # The record's time is rounded, an event's is cut.
    timeline = events.of_task(store, queues, task_id, since_ms=max(since_ms - 1, 0))
    alive = record.get("s") not in (None, *_TERMINAL)
    # A letter of an earlier life stays while the task lives again.
    letter = None if alive else _letter(store, _favoured(queues, record.get("q")), task_id)
    meta = _result(reading.stored_result(store, task_id))
    place = _locate(store, task_id, record, queues)
    if not (record or timeline or letter or meta[0] or place.message):
        return None
    members = {member.worker_id: member.name for member in fleet.workers(store)}
    if letter is not None:
        place = replace(place, state=DEAD, where=f"in the dead letters of {letter.queue}")
    message = letter.message if letter and letter.message else place.message
    worker = place.worker or record.get("w", "")
    return TaskDetail(
        task_id=task_id,
        name=record.get("n") or (message.name if message else "") or _name(timeline),
        state=place.state,
        where=place.where.replace(worker, members.get(worker, worker)) if worker else place.where,
        queue=record.get("q") or place.queue or (timeline[-1].queue if timeline else ""),
        worker=members.get(worker, worker),
        fence=place.fence or _fence(timeline),
        attempt=int(record.get("a") or 0),
        blame=int(record.get("b") or 0),
        interruptions=int(record.get("i") or 0),
        retries=int(record.get("g") or 0) % 2**32,
        life=int(record.get("l") or 1),
        accepted_ms=since_ms or None,
        started_ms=int(record["st"]) if record.get("st") else None,
        due_ms=int(record["due"]) if record.get("due") else None,
        args=message.args if message else "",
        kwargs=message.kwargs if message else "",
        schema_version=message.schema_version if message else 0,
        signature=messages.signature(message.raw, keyring) if message else None,
        result=meta[0],
        result_value=meta[1],
        reason=letter.reason if letter else "",
        error=letter.error if letter else "",
        checkpoint=letter.checkpoint if letter else saved.read(record.get("cp", "")),
        timeline=timeline,
        now_ms=reading.now_ms(store),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    state: str
    where: str
    queue: str = ""
    worker: str = ""
    message: Message | None = None
    fence: int = 0


@dataclass(frozen=True, slots=True)
class _Letter:
    queue: str
    reason: str
    error: str
    checkpoint: Saved | None
    message: Message | None


def _locate(store: Store, task_id: str, record: dict[str, str], queues: list[str]) -> _Place:
    """Find the one place where a task's message is."""
    members = fleet.workers(store)
    held = fleet.claims(store, members)
    for claim in held:
        if claim.task_id == task_id:
            parcel = reading.parcels(store, [claim])[0]
            message = messages.read(parcel.raw) if parcel else None
            state, words = (
                ("committed", "its consequences are being sent by")
                if claim.committed
                else (RUNNING, "running in")
            )
            where = f"{words} {claim.worker}"
            return _Place(state, where, claim.queue, claim.worker, message, claim.fence)
    ended = record.get("s") in _TERMINAL
    found = None if ended else _search(store, task_id, _favoured(queues, record.get("q")), held)
    if found is not None:
        return found
    if ended:
        return _Place(ENDED, "ended; its message is gone")
    return _Place("unknown", f"not among the first {_SEARCHED:,} messages of any place")


def _search(store: Store, task_id: str, queues: list[str], held: list[HeldClaim]) -> _Place | None:
    """Look for a message that no process has begun."""
    needle = task_id.encode()
    unstarted = [claim for claim in held if not claim.started][:_SEARCHED]
    for claim, parcel in zip(unstarted, reading.parcels(store, unstarted), strict=True):
        message = _matching(parcel, needle, task_id)
        if message:
            where = f"claimed by {claim.worker}, not begun"
            return _Place(CLAIMED, where, claim.queue, claim.worker, message)
    for queue in queues:
        for ahead, each in enumerate(reading.waiting(store, queue, _SEARCHED)):
            if message := _matching(each, needle, task_id):
                return _Place(QUEUED, f"in queue {queue}, {ahead} ahead of it", queue, "", message)
        for each in reading.scheduled(store, queue, _SEARCHED):
            if message := _matching(each, needle, task_id):
                return _Place(SCHEDULED, f"in the schedule of {queue}", queue, "", message)
        for each in reading.replays(store, queue, _SEARCHED):
            if message := _matching(each, needle, task_id):
                where = f"committed; what follows from it waits in {queue} for a worker"
                return _Place(REPLAY, where, queue, "", message)
    return None


def _matching(waiting: Waiting | None, needle: bytes, task_id: str) -> Message | None:
    # Most messages are another's: reading one as JSON costs far more than this look.
    if waiting is None or needle not in waiting.raw:
        return None
    message = messages.read(waiting.raw)
    return message if message and message.task_id == task_id else None


def _letter(store: Store, queues: list[str], task_id: str) -> _Letter | None:
    for queue in queues:
        ids = [each for each, _ in reading.dead(store, queue, _SEARCHED)]
        own = [each for each in ids if each.partition(events.LATER_LETTER)[0] == task_id]
        fields = reading.letter(store, queue, own[0] if own else task_id)
        if fields is not None:
            parcel = fields.get("parcel")
            return _Letter(
                queue,
                fields.get("reason", b"").decode(errors="replace"),
                fields.get("error", b"").decode(errors="replace"),
                saved.read(fields.get("cp", b"").decode()),
                messages.read(reading.unwrap(parcel).raw) if parcel else None,
            )
    return None


def _favoured(queues: list[str], first: str | None) -> list[str]:
    return [first, *(q for q in queues if q != first)] if first else queues


def _fence(timeline: Sequence[Event]) -> int:
    fences = (e.detail for e in reversed(timeline) if e.kind == "started" and e.detail.isdigit())
    return int(next(fences, "0"))


def _name(timeline: Sequence[Event]) -> str:
    return next((e.detail for e in timeline if e.kind == "accepted"), "")


def _result(raw: bytes | None) -> tuple[str, str]:
    """Return Celery's state of a stored result and its value in words."""
    if raw is None:
        return "", ""
    try:
        meta = json.loads(raw)
    except ValueError:
        return "stored", "not in JSON"
    if not isinstance(meta, dict):
        return "stored", ""
    return str(meta.get("status", "")), json.dumps(meta.get("result"))


# -- rows


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
        summaries = reading.letter_summaries(store, queue, [each for each, _ in found])
        rows += [
            TaskRow(letter_id, name, DEAD, queue, "", 0, 0, at_ms)
            for (letter_id, at_ms), (_, name, _) in zip(found, summaries, strict=True)
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
