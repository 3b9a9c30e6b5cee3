"""Give dead letters a new life."""

from __future__ import annotations

from relier.store.keys import Keys
from relier.store.operations import Argument, Operation
from relier.store.publishing import Outgoing
from relier.store.scripts import load
from relier.store.ttl import LIVE_RECORD_TTL_MS

_REVIVE = load("revive")


def revive(
    keys: Keys, queue: str, letter_id: str, message: Outgoing, at_ms: int | None = None
) -> Operation[int]:
    """Move a dead letter back to its queue.

    Args:
        letter_id: the letter, as listed.
        message: the message to run, with a token of its own: what follows from the new life must
            not be taken for what followed from the old one.
        at_ms: when the letter was written: its name goes to a later one once it is released. None
            takes whichever has the name.

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
    ]
    return Operation(_REVIVE, names, arguments, int)
