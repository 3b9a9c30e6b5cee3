"""A worker does not run what it took: it cannot, or must not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from relier.protocol.identity import Claim
from relier.store import letters
from relier.store.keys import Keys
from relier.store.operations import Argument, Operation
from relier.store.scripts import load
from relier.store.ttl import ENDED_RECORD_TTL_MS, LIVE_RECORD_TTL_MS

_BURY, _DEFER, _DISCARD = load("bury"), load("defer"), load("discard")

_DEFERRED = ("stale", "deferred", "buried", "spent")


class Unread(NamedTuple):
    """What a message that never starts says of itself; both are "" for a plain message."""

    task_id: str
    token: str


class Ended(NamedTuple):
    """A claim that ends without having started."""

    number: str
    who: Unread
    reason: str


def bury(
    keys: Keys, claim: Claim, who: Unread, letter_id: str, letter: Mapping[str, Argument]
) -> Operation[bool]:
    """Send a message that cannot be run to the dead letters, as it came."""
    names = [
        keys.worker(claim.worker),
        keys.claims(claim.queue, claim.worker),
        keys.dead(claim.queue),
        keys.dead_letter(claim.queue, letter_id),
        keys.events(claim.queue),
        keys.task(who.task_id),
        keys.checkpoint_files,
    ]
    arguments: list[Argument] = [claim.worker, claim.number, letter_id, who.token]
    arguments += letters.fields_of(letter)
    return Operation(_BURY, names, arguments, bool)


def defer(
    keys: Keys,
    claim: Claim,
    who: Unread,
    *,
    delay_ms: int,
    most_deferrals: int,
    letter: Mapping[str, Argument],
    buries: bool = True,
) -> Operation[str]:
    """Put a message off that this worker cannot run but a newer one may.

    Args:
        delay_ms: how long; 0 backs off by the number of deferrals (1 to 32 s).
        most_deferrals: after that many it becomes a dead letter.
        letter: what the dead letter would say, its reason first.
        buries: False to have it stay claimed then, for its holder to bury.

    Returns:
        "deferred", "buried" or "spent" (it stays claimed), or "stale".
    """
    names = [
        keys.worker(claim.worker),
        keys.claims(claim.queue, claim.worker),
        keys.task(who.task_id),
        keys.scheduled(claim.queue),
        keys.dead(claim.queue),
        keys.dead_letter(claim.queue, who.task_id),
        keys.events(claim.queue),
        keys.checkpoint_files,
    ]
    arguments: list[Argument] = [
        claim.worker,
        claim.number,
        who.task_id,
        delay_ms,
        most_deferrals,
        LIVE_RECORD_TTL_MS,
        who.token,
        "bury" if buries else "tell",
        *letters.fields_of(letter),
    ]
    return Operation(_DEFER, names, arguments, _DEFERRED.__getitem__)


def discard(keys: Keys, worker: str, queue: str, ended: Sequence[Ended]) -> Operation[int]:
    """End claims of one queue that will never start.

    Args:
        ended: the claims, and why each ends.
    """
    names = [keys.worker(worker), keys.claims(queue, worker), keys.events(queue)]
    names += [keys.task(each.who.task_id) for each in ended]
    arguments: list[Argument] = [worker, ENDED_RECORD_TTL_MS]
    for each in ended:
        arguments += (each.number, *each.who, each.reason)
    return Operation(_DISCARD, names, arguments, int)
