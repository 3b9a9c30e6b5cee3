"""Write dead letters, give them a new life, remove them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from relier.protocol import fingerprint as errors
from relier.protocol.checkpoint import Place
from relier.store.client import Store
from relier.store.keys import Keys
from relier.store.operations import Argument, Operation, pairs, text
from relier.store.publishing import Outgoing
from relier.store.scripts import load
from relier.store.ttl import LIVE_RECORD_TTL_MS

_REVIVE, _PURGE = load("revive"), load("purge_letters")

MOST_PURGED = 50
"""Letters that one :func:`purge` removes: Redis is busy with them for about half a millisecond."""

_RECEIPT_TTL_MS = 60_000


class Purged(NamedTuple):
    """What one batch removed.

    Args:
        letters: how many; those that were gone before do not count.
        files: the files of their checkpoints, struck out: whoever reads this may remove them, and
            the sweeper does if nobody does.
    """

    letters: int
    files: tuple[Place, ...]


def fields_of(letter: Mapping[str, Argument]) -> list[Argument]:
    """Return what a script writes into a new dead letter: field, value, ...

    Args:
        letter: reason, error, name and traceback, as far as there are any; the reason first.
    """
    task, reason, error, traceback = (
        str(letter.get(each, "")) for each in ("name", "reason", "error", "traceback")
    )
    return pairs({**letter, "fp": errors.fingerprint(task, reason, error, traceback)})


def revive(
    keys: Keys,
    queue: str,
    letter_id: str,
    message: Outgoing,
    at_ms: int | None = None,
    max_resurrections: int | None = None,
) -> Operation[int]:
    """Move a dead letter back to its queue.

    Args:
        letter_id: the letter, as listed.
        message: the message to run, with a token of its own: what follows from the new life must
            not be taken for what followed from the old one.
        at_ms: when the letter was written: its name goes to a later one once it is released. None
            takes whichever has the name.
        max_resurrections: the new life's own limit; None leaves its task's.

    Returns:
        1 released, 0 no such letter, -1 the task was dispatched anew and lives.
    """
    names = [
        keys.dead(queue),
        keys.dead_letter(queue, letter_id),
        keys.task(message.task_id),
        keys.list(queue),
        keys.bell(queue),
        keys.events(queue),
        keys.checkpoint_files,
    ]
    arguments: list[Argument] = [
        letter_id,
        message.token,
        message.generation,
        message.suffix,
        message.raw,
        LIVE_RECORD_TTL_MS,
        queue,
        message.name,
        message.task_id,
        "" if at_ms is None else at_ms,
        "" if max_resurrections is None else max_resurrections,
        message.expires_ms,
    ]
    return Operation(_REVIVE, names, arguments, int)


def purge(
    keys: Keys,
    queue: str,
    found: Sequence[tuple[str, int]],
    why: str,
    receipt: str,
    *,
    keep: int = 0,
    fingerprint: str = "",
) -> Operation[Purged]:
    """Remove up to ``MOST_PURGED`` dead letters of a queue; each leaves an event that says why.

    Args:
        found: (letter id, ms of death) of each.
        receipt: a token of this call: asked again, it says what it did the first time.
        keep: stop when the queue has no more letters than this; 0 does not look.
        fingerprint: that they were found under, whose index then forgets those that are gone.
    """
    names = [
        keys.dead(queue),
        keys.events(queue),
        keys.checkpoint_files,
        keys.receipt(receipt),
        *(keys.dead_letter(queue, letter_id) for letter_id, _ in found),
    ]
    arguments: list[Argument] = [why, keep, _RECEIPT_TTL_MS, fingerprint]
    arguments += [word for pair in found for word in pair]
    return Operation(_PURGE, names, arguments, _purged)


def take_turn(store: Store, every_ms: int) -> bool:
    """Return whether this process may look for letters to remove; one may in each interval."""
    return bool(store.redis.set(store.keys.retention_turn, "1", nx=True, px=every_ms))


def _purged(reply: Any) -> Purged:
    count, *places = text(reply).split()
    return Purged(int(count), tuple(map(Place.read, places)))
