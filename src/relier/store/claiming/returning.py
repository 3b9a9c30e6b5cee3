"""A worker gives back what it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from relier.protocol.identity import Claim
from relier.store.keys import Keys
from relier.store.operations import Argument, Operation
from relier.store.scripts import load
from relier.store.ttl import LIVE_RECORD_TTL_MS

_RELEASE, _RECONCILE = load("release"), load("reconcile")
_DISOWN, _REQUEUE = load("disown"), load("requeue")


class Returned(NamedTuple):
    """An unstarted or stopped claim on its way back; ``task_id`` is "" for a plain message."""

    number: str
    task_id: str


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
