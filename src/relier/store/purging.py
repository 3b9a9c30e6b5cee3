"""Remove messages that wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from relier.store.keys import Keys
from relier.store.operations import Argument, Operation
from relier.store.scripts import load
from relier.store.ttl import ENDED_RECORD_TTL_MS

MOST_PER_PURGE = 50
"""Messages per call: a millisecond of the server's time, two when workers conclude them."""

_PURGE = load("purge_waiting")
_REPEATED_WITHIN_MS = 60_000


class Doomed(NamedTuple):
    """A waiting message.

    Args:
        raw: as it stands in its list; in the schedule the whole parcel.
        task_id: its task, or "" when it carries none.
        token: of its publish.
        generation: see :func:`relier.protocol.identity.generation`.
        follows: whether something follows though the task does not run: a chord counts it.
    """

    raw: bytes
    task_id: str = ""
    token: str = ""
    generation: int = 0
    follows: bool = False


class Batch(NamedTuple):
    """What one call did.

    Args:
        removed: messages; of these:
        ended: tasks that are over.
        revoked: tasks that workers conclude as revoked.
        others: copies of tasks that go on elsewhere, and messages that carry no task.
    """

    removed: int
    ended: int
    revoked: int
    others: int


def purge(
    keys: Keys, queue: str, batch: str, suffix: str | None, doomed: Sequence[Doomed], revoked: bytes
) -> Operation[Batch]:
    """Remove those of these messages that still wait.

    Args:
        batch: an id of this call; repeated under it, the call says what it did the first time.
        suffix: of the list they wait in; None for the schedule.
        doomed: at most ``MOST_PER_PURGE``, in the order in which they would be claimed.
        revoked: the outcome of a revoked task.
    """
    names = [
        keys.scheduled(queue) if suffix is None else keys.list(queue) + suffix,
        keys.replay(queue),
        keys.bell(queue),
        keys.events(queue),
        keys.purge(queue, batch),
        *(keys.task(each.task_id) for each in doomed),
    ]
    arguments: list[Argument] = [
        "zset" if suffix is None else "list",
        suffix or "",
        keys.claims_template,
        ENDED_RECORD_TTL_MS,
        revoked,
        _REPEATED_WITHIN_MS,
    ]
    for each in doomed:
        arguments += (*each[:-1], int(each.follows))
    return Operation(_PURGE, names, arguments, _batch)


def _batch(reply: list[Any]) -> Batch:
    return Batch(*map(int, reply))
