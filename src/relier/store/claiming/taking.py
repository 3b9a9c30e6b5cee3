"""A worker takes messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from relier.protocol.identity import Claim
from relier.store.keys import Keys
from relier.store.operations import Argument, Operation, text
from relier.store.scripts import load

MOST_PER_CLAIM = 250
"""Messages per claim: each may take four arguments of a variadic HSET, and Lua unpacks 1,000."""

_MOST_PROMOTED = 100
_CLAIM = load("claim")


class Claimed(NamedTuple):
    """One message in this worker's hands.

    Args:
        claim: its name; every later operation must give it.
        suffix: the priority list it came from.
        raw: the message text.
        outcome: the saved outcome, when it had committed and only its consequences must be sent.
    """

    claim: Claim
    suffix: str
    raw: bytes
    outcome: bytes | None
    replays: int


class Harvest(NamedTuple):
    """What one ``claim`` gave.

    Args:
        refused: "" or why nothing was given: "gone" (no entry, or being reaped), "epoch".
        next_due_ms: ms until the next scheduled message, or None.
        claimed: the messages.
    """

    refused: str
    next_due_ms: int | None
    claimed: list[Claimed]


def claim(
    keys: Keys,
    worker: str,
    epoch: int,
    queues: Sequence[str],
    room: int,
    suffixes: Sequence[str],
    shunned: Collection[str] = (),
) -> Operation[Harvest]:
    """Take up to ``room`` messages.

    Args:
        epoch: the worker's epoch; an older one is refused.
        queues: in the order to favour.
        room: how many, at most ``MOST_PER_CLAIM``.
        suffixes: kombu's priority lists, highest priority first.
        shunned: queues whose committed tasks are left to other workers.
    """
    names = [keys.worker(worker), keys.queues]
    for queue in queues:
        names += (
            keys.list(queue),
            keys.replay(queue),
            keys.scheduled(queue),
            keys.claims(queue, worker),
            keys.paused(queue),
            keys.bell(queue),
            keys.events(queue),
        )
    room = min(room, MOST_PER_CLAIM)

    def parse(reply: list[Any]) -> Harvest:
        return _harvest(worker, queues, reply)

    left = "".join(f"{index}," for index, queue in enumerate(queues) if queue in shunned)
    arguments: list[Argument] = [epoch, room, _MOST_PROMOTED, f",{left}", *suffixes]
    return Operation(_CLAIM, names, arguments, parse)


def _harvest(worker: str, queues: Sequence[str], reply: list[Any]) -> Harvest:
    status, next_due_ms = int(reply[0]), int(reply[1])
    if status != 1:
        return Harvest("gone" if status == 0 else "epoch", None, [])
    claimed = []
    for i in range(2, len(reply), 5):
        index, number, suffix, raw, committed = reply[i : i + 5]
        replays, _, _, outcome = committed.split(b"|", 3) if committed else (b"0", b"", b"", b"")
        claimed.append(
            Claimed(
                Claim(worker, queues[int(index)], text(number)),
                text(suffix),
                raw,
                outcome if committed else None,
                int(replays),
            )
        )
    return Harvest("", None if next_due_ms < 0 else next_due_ms, claimed)
