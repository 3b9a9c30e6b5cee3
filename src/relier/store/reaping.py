"""What becomes of the claims of the dead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from relier.protocol.identity import Claim
from relier.store.keys import Keys
from relier.store.operations import Argument, Operation, text
from relier.store.scripts import load
from relier.store.ttl import LIVE_RECORD_TTL_MS

_REAP, _REAP_CLAIM, _SWEEP = load("reap"), load("reap_claim"), load("sweep")


class ReapRules(NamedTuple):
    """How resurrection is bounded.

    Args:
        max_resurrections: returns after its own death that a task is allowed.
        max_interruptions: returns after deaths of whole workers with neighbours.
        batch_size: claims of one worker that are moved in one go; a script moves some of them, so
            that Redis is not busy for long.
        max_queue_depth: messages above which a queue takes no more back for now; 0 for no limit.
        recovery_queue: where resurrected tasks go instead of their own queue, or "".
        exhausted_blame: the outcome of a task that killed its process too often.
        exhausted_interruptions: the outcome of a task that was interrupted too often.
    """

    max_resurrections: int
    max_interruptions: int
    batch_size: int
    max_queue_depth: int
    recovery_queue: str
    exhausted_blame: bytes
    exhausted_interruptions: bytes


class Suspect(NamedTuple):
    """A worker as it was judged: if it has beaten or reconnected since, it is not reaped."""

    worker: str
    beat: str
    client_id: str


class Reaped(NamedTuple):
    """What one batch did; ``status`` is "done", "more", "alive", "held back" or "stuck"."""

    status: str
    unstarted: int
    replayed: int
    resurrected: int
    exhausted: int


class ReapedClaim(NamedTuple):
    """Where one claim went: "unstarted", "replay", "requeued", "scheduled", "exhausted", "gone"."""

    verdict: str
    task_id: str
    returns: int


_STATUS = {1: "done", 0: "more", -1: "alive", -2: "held back", -3: "stuck"}


def reap(
    keys: Keys, suspect: Suspect, queues: Sequence[str], reason: str, rules: ReapRules
) -> Operation[Reaped]:
    """Move some of a dead worker's claims to where each continues: ``batch_size``, at most 50.

    Args:
        queues: all that there are; with fewer nothing is moved, and there is "more" to do.
    """
    worker = suspect.worker
    names = [keys.worker(worker), keys.workers, *_recovery_keys(keys, rules), keys.queues]
    names.append(keys.past_workers)
    for queue in queues:
        names += (
            keys.list(queue),
            keys.replay(queue),
            keys.scheduled(queue),
            keys.claims(queue, worker),
            keys.bell(queue),
            keys.events(queue),
        )
    arguments: list[Argument] = [
        worker,
        suspect.beat,
        suspect.client_id,
        rules.batch_size,
        rules.max_queue_depth,
        rules.max_resurrections,
        rules.max_interruptions,
        keys.task_template,
        LIVE_RECORD_TTL_MS,
        reason,
        1 if rules.recovery_queue else 0,
        rules.exhausted_blame,
        rules.exhausted_interruptions,
    ]
    return Operation(_REAP, names, arguments, _reaped)


def reap_claim(keys: Keys, claim: Claim, reason: str, rules: ReapRules) -> Operation[ReapedClaim]:
    """Take back one claim of a living worker whose pool process died."""
    queue = claim.queue
    names = [
        keys.worker(claim.worker),
        keys.list(queue),
        keys.replay(queue),
        keys.scheduled(queue),
        keys.claims(queue, claim.worker),
        keys.bell(queue),
        keys.events(queue),
        *_recovery_keys(keys, rules),
    ]
    arguments: list[Argument] = [
        claim.worker,
        claim.number,
        rules.max_resurrections,
        rules.max_interruptions,
        keys.task_template,
        LIVE_RECORD_TTL_MS,
        reason,
        1 if rules.recovery_queue else 0,
        rules.exhausted_blame,
    ]
    return Operation(_REAP_CLAIM, names, arguments, _reaped_claim)


def sweep(keys: Keys, parked_key: str, queues: Sequence[str] = ()) -> Operation[str]:
    """Wake the duplicates parked behind an idempotency key that nobody owns, some hundreds of them.

    Args:
        parked_key: the key's full name, from ``keys.parked_keys``.
        queues: all that are known; none: those that the key names, while it lasts.

    Returns:
        "done" when none is left; "more" when some were woken and others wait for the next call;
        "left" when its owner runs, or when those that wait cannot go back now.
    """
    verdict = ("left", "done", "more").__getitem__
    return Operation(_SWEEP, [parked_key, keys.parked_keys], list(queues), verdict)


def _recovery_keys(keys: Keys, rules: ReapRules) -> tuple[str, str]:
    return keys.list(rules.recovery_queue), keys.bell(rules.recovery_queue)


def _reaped(reply: list[Any]) -> Reaped:
    status, unstarted, replayed, resurrected, exhausted = (int(value) for value in reply)
    return Reaped(_STATUS[status], unstarted, replayed, resurrected, exhausted)


def _reaped_claim(reply: list[Any]) -> ReapedClaim:
    return ReapedClaim(text(reply[0]), text(reply[1]), int(reply[2]))
