"""A worker's own operations: being there, taking messages, giving them back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from relier.protocol.identity import Claim
from relier.store.keys import Keys
from relier.store.operations import Argument, Operation, text
from relier.store.scripts import load
from relier.store.ttl import ENDED_RECORD_TTL_MS, LIVE_RECORD_TTL_MS

MOST_PER_CLAIM = 250
"""Messages per claim: each may take four arguments of a variadic HSET, and Lua unpacks 1,000."""

_MOST_PROMOTED = 100

_HELLO, _BEAT, _GOODBYE = load("hello"), load("beat"), load("goodbye")
_CLAIM, _RELEASE, _RECONCILE = load("claim"), load("release"), load("reconcile")
_DISOWN, _REQUEUE = load("disown"), load("requeue")
_DRAIN, _DRAINED = load("drain"), load("drained")
_BURY, _DEFER, _DISCARD = load("bury"), load("defer"), load("discard")


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


class Unread(NamedTuple):
    """What a message that never starts says of itself; both are "" for a plain message."""

    task_id: str
    token: str


class Ended(NamedTuple):
    """A claim that ends without having started."""

    number: str
    who: Unread
    reason: str


class Seen(NamedTuple):
    """The server's answer to a beat.

    Args:
        alive: False when the worker must go on under a new id.
        drain: the order to drain, or "".
    """

    alive: bool
    drain: str


class Returned(NamedTuple):
    """An unstarted or stopped claim on its way back; ``task_id`` is "" for a plain message."""

    number: str
    task_id: str


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


def hello(keys: Keys, worker: str, fields: Mapping[str, Argument]) -> Operation[bool]:
    """Create a worker's entry; the worker id must be new."""
    arguments: list[Argument] = [worker, *_pairs(fields)]
    return Operation(_HELLO, [keys.worker(worker), keys.workers], arguments, bool)


def beat(keys: Keys, worker: str, fields: Mapping[str, Argument]) -> Operation[Seen]:
    """Say that the worker lives, and hear what it is to do."""
    return Operation(_BEAT, [keys.worker(worker)], _pairs(fields), _seen)


def drain(keys: Keys, worker: str, order: str) -> Operation[bool]:
    """Order a worker to drain; False when there is no such worker.

    Args:
        order: an id of the order, "|", and the ms that running tasks may take or "".
    """
    return Operation(_DRAIN, [keys.worker(worker)], [order], bool)


def drained(keys: Keys, worker: str, queue: str, account: Sequence[int]) -> Operation[bool]:
    """Say what became of all that a worker held.

    Args:
        queue: any of its queues; the event goes to that one's.
        account: how many were completed, handed over, given back, and neither.
    """
    text = "|".join(map(str, account))
    names = [keys.worker(worker), keys.events(queue)]
    return Operation(_DRAINED, names, [worker, text], bool)


def goodbye(keys: Keys, worker: str, queues: Sequence[str]) -> Operation[bool]:
    """Remove the worker's entry if it holds nothing."""
    names = [keys.worker(worker), keys.workers, *(keys.claims(q, worker) for q in queues)]
    return Operation(_GOODBYE, names, [worker], bool)


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
        )
    room = min(room, MOST_PER_CLAIM)

    def parse(reply: list[Any]) -> Harvest:
        return _harvest(worker, queues, reply)

    left = "".join(f"{index}," for index, queue in enumerate(queues) if queue in shunned)
    arguments: list[Argument] = [epoch, room, _MOST_PROMOTED, f",{left}", *suffixes]
    return Operation(_CLAIM, names, arguments, parse)


def release(
    keys: Keys,
    worker: str,
    queue: str,
    claims: Sequence[Returned],
    reason: str,
    *,
    stopped: bool = False,
) -> Operation[dict[str, str]]:
    """Give claims of one queue back to its head; nothing is blamed.

    Args:
        claims: which ones.
        stopped: hand over started ones, too: their processes were stopped, or end with this call.

    Returns:
        For each claim number "returned" (it had not started), "handed", or "" (it is gone, has
        committed, or started and stays).
    """
    names = [
        keys.worker(worker),
        keys.list(queue),
        keys.claims(queue, worker),
        keys.bell(queue),
        keys.events(queue),
    ]
    youngest_first = sorted(claims, key=lambda each: int(each.number), reverse=True)
    arguments: list[Argument] = [
        worker,
        int(stopped),
        keys.task_template,
        LIVE_RECORD_TTL_MS,
        reason,
    ]
    for each in youngest_first:
        arguments += each

    def parse(reply: list[Any]) -> dict[str, str]:
        verdicts = (("", "returned", "handed")[int(verdict)] for verdict in reply)
        return dict(zip((each.number for each in youngest_first), verdicts, strict=True))

    return Operation(_RELEASE, names, arguments, parse)


def requeue(keys: Keys, claim: Claim) -> Operation[bool]:
    """Put an unstarted claim back behind what waits in its list, as a consumer asked."""
    queue, worker = claim.queue, claim.worker
    names = [keys.worker(worker), keys.list(queue), keys.claims(queue, worker), keys.bell(queue)]
    return Operation(_REQUEUE, names, [claim.number], bool)


def reconcile(
    keys: Keys, worker: str, epoch: int, queues: Sequence[str], held: Sequence[str]
) -> Operation[int]:
    """Raise the epoch and give back every claim that is not held and not worked under.

    Returns:
        How many went back; -1 when the worker itself is gone.
    """
    names = [keys.worker(worker)]
    for queue in queues:
        names += (
            keys.list(queue),
            keys.claims(queue, worker),
            keys.bell(queue),
            keys.replay(queue),
        )
    return Operation(_RECONCILE, names, [epoch, *held], int)


def disown(
    keys: Keys, worker: str, queue: str, numbers: Sequence[str], reason: str
) -> Operation[int]:
    """Give back claims of one queue that have started and that nobody works under any more.

    Returns:
        How many went back; those that have ended, or never started, are left alone.
    """
    names = [
        keys.worker(worker),
        keys.list(queue),
        keys.claims(queue, worker),
        keys.bell(queue),
        keys.replay(queue),
        keys.events(queue),
    ]
    youngest_first = sorted(numbers, key=int, reverse=True)
    return Operation(_DISOWN, names, [worker, keys.task_template, reason, *youngest_first], int)


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
    arguments += _pairs(letter)
    return Operation(_BURY, names, arguments, bool)


def defer(
    keys: Keys,
    claim: Claim,
    who: Unread,
    *,
    delay_ms: int,
    most_deferrals: int,
    letter: Mapping[str, Argument],
) -> Operation[str]:
    """Put a message off that this worker cannot run but a newer one may.

    Args:
        delay_ms: how long; 0 backs off by the number of deferrals (1 to 32 s).
        most_deferrals: after that many it becomes a dead letter.
        letter: what the dead letter would say, its reason first.

    Returns:
        "deferred", "buried", or "stale".
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
        *_pairs(letter),
    ]
    return Operation(_DEFER, names, arguments, ("stale", "deferred", "buried").__getitem__)


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


def _pairs(fields: Mapping[str, Argument]) -> list[Argument]:
    return [word for pair in fields.items() for word in pair]


def _seen(reply: list[Any]) -> Seen:
    return Seen(bool(reply[0]), text(reply[1]))


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
