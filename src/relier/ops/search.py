"""Find the one place where a task is: by its record where that says it, else by a bounded look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from relier.ops import fleet, messages
from relier.ops.messages import Message
from relier.ops.places import (
    CLAIMED,
    ENDED,
    QUEUED,
    REPLAY,
    RUNNING,
    SCHEDULED,
    TERMINAL,
    Place,
    favoured,
)
from relier.store import reading
from relier.store.client import Store
from relier.store.reading import HeldClaim, Waiting

_SEARCHED = 2000
_MOST_BYTES = 32_000_000
_MOST_PROBES = 40
_AROUND = 200


def locate(
    store: Store, task_id: str, record: dict[str, str], queues: list[str], *, whole: bool = False
) -> Place:
    """Find the one place where a task's message is.

    Args:
        whole: read its message whatever its size.
    """
    if record.get("s") in TERMINAL:
        return Place(ENDED, "ended; its message is gone")
    return (
        _in_hand(store, task_id, _of_record(store, record), whole=whole)
        or _elsewhere(store, task_id, record, favoured(queues, record.get("q")))
        or _unseen(record)
    )


def _of_record(store: Store, record: dict[str, str]) -> Iterator[HeldClaim]:
    """Yield the claims that a record names: all of its last worker's, once it has committed."""
    worker, queue = record.get("w"), record.get("q")
    if worker and queue and record.get("s") in ("r", "c"):
        yield from reading.held(store, [(worker, queue)])


def _in_hand(
    store: Store, task_id: str, held: Iterable[HeldClaim], *, whole: bool = False
) -> Place | None:
    """Look for a task that a process has begun."""
    for claim in held:
        if claim.task_id == task_id:
            size_bytes = reading.parcel_size(store, claim)
            largest = size_bytes if whole else reading.LARGEST_BYTES
            parcel = reading.parcels(store, [claim], largest)[0]
            message = messages.read(parcel.raw) if parcel else None
            state, words = (
                ("committed", "its consequences are being sent by")
                if claim.committed
                else (RUNNING, "running in")
            )
            where = f"{words} {claim.worker}"
            return Place(
                state,
                where,
                claim.queue,
                claim.worker,
                message,
                claim.fence,
                claim.number,
                size_bytes,
            )
    return None


def _elsewhere(
    store: Store, task_id: str, record: dict[str, str], queues: list[str]
) -> Place | None:
    """Look where its record says that it is, or, for one that says nothing, everywhere."""
    if queues and record.get("s") == "q":
        # The schedule and the order of acceptance lead to it however long the queue is.
        found = _due(store, task_id, record, queues[0]) or _deep(store, task_id, record, queues[0])
        if found:
            return found
    held = fleet.claims(store, fleet.workers(store))
    found = _in_hand(store, task_id, held) or _unbegun(store, task_id, held)
    for queue in queues:
        found = found or _waiting(store, task_id, queue)
    return found


def scheduled_parcel(
    store: Store, queue: str, task_id: str, record: dict[str, str]
) -> bytes | None:
    """Return a task's element in the schedule of a queue, or None."""
    due_ms = int(record.get("due") or 0)
    return reading.scheduled_parcel(store, queue, task_id, due_ms, messages.task_id)


def _due(store: Store, task_id: str, record: dict[str, str], queue: str) -> Place | None:
    parcel = scheduled_parcel(store, queue, task_id, record)
    if parcel is None:
        return None
    message = messages.read(reading.unwrap(parcel).raw)
    return Place(SCHEDULED, f"in the schedule of {queue}", queue, "", message)


def _deep(store: Store, task_id: str, record: dict[str, str], queue: str) -> Place | None:
    """Look in long lists near where messages of its age are, which are in order but for a few."""
    accepted_ms = int(record.get("at") or 0)
    for suffix in reading.SUFFIXES:
        length = reading.size(store, queue, suffix)
        if length <= _SEARCHED or not accepted_ms:
            continue
        low, high, probes = 0, length, 0
        while high - low > _AROUND // 2 and probes < _MOST_PROBES:
            middle, probes = (low + high) // 2, probes + 1
            at_ms = _accepted_ms(store, reading.message_at(store, queue, suffix, middle))
            # Nobody knows how old one without a record is; the next one may say it.
            if at_ms is not None and at_ms >= accepted_ms:
                high = middle
            else:
                low = middle + 1
        start = max(low - _AROUND, 0)
        for ahead, raw in enumerate(
            reading.messages_from(store, queue, suffix, start, _AROUND + _SEARCHED), start
        ):
            if message := _matching(Waiting(suffix, raw), task_id):
                return Place(QUEUED, f"in queue {queue}, {ahead:,} ahead of it", queue, "", message)
    return None


def _accepted_ms(store: Store, raw: bytes | None) -> int | None:
    message = messages.read(raw) if raw else None
    if message is None:
        return None
    at = reading.records(store, [message.task_id])[0].get("at")
    return int(at) if at else None


def _unbegun(store: Store, task_id: str, held: list[HeldClaim]) -> Place | None:
    unstarted = [claim for claim in held if not claim.started][:_SEARCHED]
    for claim, parcel in zip(unstarted, reading.parcels(store, unstarted), strict=True):
        if message := _matching(parcel, task_id):
            where = f"claimed by {claim.worker}, not begun"
            return Place(CLAIMED, where, claim.queue, claim.worker, message, 0, claim.number)
    return None


def _waiting(store: Store, task_id: str, queue: str) -> Place | None:
    """Look among the first of a queue's places."""
    seen_bytes = 0
    for ahead, each in enumerate(reading.waiting(store, queue, _SEARCHED)):
        if message := _matching(each, task_id):
            return Place(QUEUED, f"in queue {queue}, {ahead:,} ahead of it", queue, "", message)
        seen_bytes += len(each.raw)
        if seen_bytes > _MOST_BYTES:
            break
    for each in reading.scheduled(store, queue, _SEARCHED):
        if message := _matching(each, task_id):
            return Place(SCHEDULED, f"in the schedule of {queue}", queue, "", message)
    for each in reading.replays(store, queue, _SEARCHED):
        if message := _matching(each, task_id):
            where = f"committed; what follows from it waits in {queue} for a worker"
            return Place(REPLAY, where, queue, "", message)
    return None


def _unseen(record: dict[str, str]) -> Place:
    """Say what the record alone tells."""
    queue = record.get("q", "")
    if record.get("s") == "q":
        where = f"waiting in {queue}; not among the first {_SEARCHED:,} messages of any place"
        return Place(QUEUED, where, queue)
    if record.get("s") == "w":
        return Place("continued", "a chord or chain that replaced it goes on under its id", queue)
    return Place("unknown", f"not among the first {_SEARCHED:,} messages of any place", queue)


def _matching(waiting: Waiting | None, task_id: str) -> Message | None:
    # Most messages are another's: reading one as JSON costs far more than this look.
    if waiting is None or task_id.encode() not in waiting.raw:
        return None
    message = messages.read(waiting.raw)
    return message if message and message.task_id == task_id else None
