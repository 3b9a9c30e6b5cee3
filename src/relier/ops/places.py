"""The places where a task can be."""

from __future__ import annotations

from dataclasses import dataclass

from relier.ops import events, messages, saved
from relier.ops.messages import Message
from relier.ops.saved import Saved
from relier.store import reading
from relier.store.client import Store

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
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """A task's dead letter; ``lines`` is the history that it carries along."""

    queue: str
    reason: str
    error: str
    checkpoint: Saved | None
    message: Message | None
    lines: str


def letter_of(store: Store, queues: list[str], task_id: str) -> Letter | None:
    """Return the newest dead letter of a task, if one of these queues has it."""
    for queue in queues:
        fields = reading.letter(store, queue, newest_letter(store, queue, task_id))
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


def newest_letter(store: Store, queue: str, task_id: str) -> str:
    """Return the name that a task's newest dead letter in a queue has, if there is one at all."""
    ids = (each for each, _ in reading.dead(store, queue, _SEARCHED))
    own = (each for each in ids if each.partition(events.LATER_LETTER)[0] == task_id)
    return next(own, task_id)


def favoured(queues: list[str], first: str | None) -> list[str]:
    """Return the queues, the one to look in first at their head."""
    return [first, *(q for q in queues if q != first)] if first else queues
