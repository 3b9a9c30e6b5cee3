"""The places where a task can be, and a look for one task in all of them."""

from __future__ import annotations

from dataclasses import dataclass

from relier.ops import events, fleet, messages, saved
from relier.ops.messages import Message
from relier.ops.saved import Saved
from relier.store import reading
from relier.store.client import Store
from relier.store.reading import HeldClaim, Waiting

RUNNING, CLAIMED, REPLAY = "running", "claimed", "replay"
QUEUED, SCHEDULED, DEAD, ENDED = "queued", "scheduled", "dead", "ended"
STATES = (RUNNING, CLAIMED, REPLAY, QUEUED, SCHEDULED, DEAD, ENDED)
"""The places of a task, in the order in which they are listed."""

TERMINAL = ("e", "d")
"""The states of a record whose life is over."""

_SEARCHED = 2000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task is: one of ``STATES``, "committed" or "unknown", and the same in words."""

    state: str
    where: str
    queue: str = ""
    worker: str = ""
    message: Message | None = None
    fence: int = 0
    claim: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """A task's dead letter; ``lines`` is the history that it carries along."""

    queue: str
    reason: str
    error: str
    checkpoint: Saved | None
    message: Message | None
    lines: str


def locate(store: Store, task_id: str, record: dict[str, str], queues: list[str]) -> Place:
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
            return Place(
                state, where, claim.queue, claim.worker, message, claim.fence, claim.number
            )
    ended = record.get("s") in TERMINAL
    found = None if ended else _search(store, task_id, favoured(queues, record.get("q")), held)
    if found is not None:
        return found
    if ended:
        return Place(ENDED, "ended; its message is gone")
    return Place("unknown", f"not among the first {_SEARCHED:,} messages of any place")


def _search(store: Store, task_id: str, queues: list[str], held: list[HeldClaim]) -> Place | None:
    """Look for a message that no process has begun."""
    needle = task_id.encode()
    unstarted = [claim for claim in held if not claim.started][:_SEARCHED]
    for claim, parcel in zip(unstarted, reading.parcels(store, unstarted), strict=True):
        message = _matching(parcel, needle, task_id)
        if message:
            where = f"claimed by {claim.worker}, not begun"
            return Place(CLAIMED, where, claim.queue, claim.worker, message, 0, claim.number)
    for queue in queues:
        for ahead, each in enumerate(reading.waiting(store, queue, _SEARCHED)):
            if message := _matching(each, needle, task_id):
                return Place(QUEUED, f"in queue {queue}, {ahead} ahead of it", queue, "", message)
        for each in reading.scheduled(store, queue, _SEARCHED):
            if message := _matching(each, needle, task_id):
                return Place(SCHEDULED, f"in the schedule of {queue}", queue, "", message)
        for each in reading.replays(store, queue, _SEARCHED):
            if message := _matching(each, needle, task_id):
                where = f"committed; what follows from it waits in {queue} for a worker"
                return Place(REPLAY, where, queue, "", message)
    return None


def _matching(waiting: Waiting | None, needle: bytes, task_id: str) -> Message | None:
    # Most messages are another's: reading one as JSON costs far more than this look.
    if waiting is None or needle not in waiting.raw:
        return None
    message = messages.read(waiting.raw)
    return message if message and message.task_id == task_id else None


def letter_of(store: Store, queues: list[str], task_id: str) -> Letter | None:
    """Return the newest dead letter of a task, if one of these queues has it."""
    for queue in queues:
        ids = [each for each, _ in reading.dead(store, queue, _SEARCHED)]
        own = [each for each in ids if each.partition(events.LATER_LETTER)[0] == task_id]
        fields = reading.letter(store, queue, own[0] if own else task_id)
        if fields is not None:
            parcel = fields.get("parcel")
            return Letter(
                queue,
                fields.get("reason", b"").decode(errors="replace"),
                fields.get("error", b"").decode(errors="replace"),
                saved.read(fields.get("cp", b"").decode()),
                messages.read(reading.unwrap(parcel).raw) if parcel else None,
                fields.get("h", b"").decode(errors="replace"),
            )
    return None


def favoured(queues: list[str], first: str | None) -> list[str]:
    """Return the queues, the one to look in first at their head."""
    return [first, *(q for q in queues if q != first)] if first else queues
