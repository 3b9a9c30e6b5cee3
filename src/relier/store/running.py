"""The operations of a process that runs a task under a claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from relier.protocol import checkpoint
from relier.protocol.checkpoint import Checkpoint
from relier.protocol.identity import Claim, Identity
from relier.store import letters
from relier.store.keys import Keys
from relier.store.operations import Argument, Operation, text
from relier.store.publishing import Outgoing
from relier.store.scripts import load
from relier.store.ttl import ENDED_RECORD_TTL_MS, LIVE_RECORD_TTL_MS

_START, _FINISH, _COMMIT, _ACK = load("start"), load("finish"), load("commit"), load("ack")
_ABANDON, _CONDEMN = load("abandon"), load("condemn")
_OVERTIME, _REVOKE, _TERMINATE = load("overtime"), load("revoke"), load("terminate")

STALE, COMMITTED, MORE_PARKED = 0, 1, 2
"""Answers of :func:`finish` and :func:`commit`."""

TOO_OLD, GONE, ORDERED = -1, 0, 1
"""Answers of :func:`terminate`."""


class Started(NamedTuple):
    """The server's answer to ``start``.

    Args:
        verdict: "run", "stale" (the claim is not ours any more), "drop" (a copy), "busy" (an
            earlier generation still runs, or another suspect is on trial; the message comes again),
            "parked" (the same call runs; the message waits for its end), "paused" (its queue is;
            the message is back there).
        fence: the fencing token, one growing integer per server.
        starts: how often this life was started, this time included.
        returns: how often it came back from a dead process.
        root: the root token of this life, from which consequences derive theirs.
        generation: which generation of this life it runs as.
        done: the result of an earlier call with the same idempotency key, to be committed instead
            of running the body; or b"".
        revoked: why it is not to run: "revoked" (somebody left word), "expired", or ""; "unkept"
            when the record of its expiry is gone.
        checkpoint: what an earlier attempt saved last.
    """

    verdict: str
    fence: int = 0
    starts: int = 0
    returns: int = 0
    root: str = ""
    generation: int = 0
    done: bytes = b""
    revoked: str = ""
    checkpoint: Checkpoint | None = None


class Kept(NamedTuple):
    """What an idempotency key keeps of a success.

    Args:
        value: the encoded result.
        ttl_ms: for how long.
    """

    value: bytes
    ttl_ms: int


class Trial(NamedTuple):
    """How a suspect is kept apart: a task beside which several workers died.

    Args:
        shortest_ms: how long it is on trial at least.
        longest_ms: and at most, however long it had run when its worker died.
        patience_ms: how long it waits for a worker in which no other suspect is on trial.
    """

    shortest_ms: int = 1_000
    longest_ms: int = 30_000
    patience_ms: int = 30_000


_TRIAL = Trial()


class StoredResult(NamedTuple):
    """A task result as Celery's Redis backend would store it.

    Args:
        key: the backend's key, without relier's prefix.
        ttl_s: seconds; 0 keeps it.
        value: the encoded result.
    """

    key: str
    ttl_s: int
    value: str | bytes


def start(
    keys: Keys,
    claim: Claim,
    identity: Identity,
    *,
    own_limit: int | None,
    max_resurrections: int,
    idempotency_key: str = "",
    expires: bool = False,
    trial: Trial = _TRIAL,
) -> Operation[Started]:
    """Begin a task; nothing of it may happen before this says "run".

    Args:
        own_limit: the task's own limit of resurrections, if it has one.
        max_resurrections: that of all others.
        idempotency_key: as ``CallKey`` names it, or "".
        expires: the message says that its expiry is kept in its record.
        trial: how suspects are kept apart.
    """
    names = [
        keys.worker(claim.worker),
        keys.claims(claim.queue, claim.worker),
        keys.task(identity.task_id),
        keys.fence,
        keys.events(claim.queue),
        keys.scheduled(claim.queue),
        keys.parked_keys,
        keys.list(claim.queue),
        keys.paused(claim.queue),
    ]
    arguments: list[Argument] = [
        claim.worker,
        claim.number,
        identity.task_id,
        identity.token,
        identity.generation,
        identity.name,
        claim.queue,
        LIVE_RECORD_TTL_MS,
        keys.claims_template,
        "" if own_limit is None else own_limit,
        max_resurrections,
        *trial,
        keys.idempotency(idempotency_key) if idempotency_key else "",
        int(expires),
        0,
    ]
    return Operation(_START, names, arguments, _started)


def start_forgotten(start: Operation[Started]) -> Operation[Started]:
    """Tell a server that may have forgotten it that a task's body has begun.

    What would keep a task from beginning (a paused queue, a trial) does not undo that it has.

    Args:
        start: what it began by.
    """
    return start._replace(arguments=[*start.arguments[:-1], 1])


def finish(
    keys: Keys,
    claim: Claim,
    task_id: str,
    state: str,
    result: StoredResult | None,
    kept: Kept | None = None,
) -> Operation[int]:
    """Commit, store the result and end the claim in one step.

    Returns:
        ``COMMITTED`` or ``STALE``; ``MORE_PARKED`` when it is committed, and more duplicates wait
        for its key than one step wakes.
    """
    names = _commit_keys(keys, claim, task_id)
    arguments: list[Argument] = [claim.worker, claim.number, task_id, state, ENDED_RECORD_TTL_MS]
    if result:
        names.append(result.key)
        arguments += (result.ttl_s, result.value)
    else:
        arguments += (0, "")
    arguments += kept or ("", 0)
    return Operation(_FINISH, names, arguments, int)


def commit(
    keys: Keys,
    claim: Claim,
    task_id: str,
    state: str,
    outcome: bytes,
    kept: Kept | None = None,
    *,
    goes_on: bool = False,
) -> Operation[int]:
    """Save the outcome beside the claim; from here on the task never runs again.

    Args:
        goes_on: whether the same id goes on elsewhere, as a later generation; else this is its end,
            and counted as such.

    Returns:
        As ``finish``.
    """
    names = _commit_keys(keys, claim, task_id)
    arguments: list[Argument] = [claim.worker, claim.number, task_id, state, outcome]
    arguments += (*(kept or ("", 0)), int(goes_on))
    return Operation(_COMMIT, names, arguments, int)


def _commit_keys(keys: Keys, claim: Claim, task_id: str) -> list[str]:
    return [
        keys.worker(claim.worker),
        keys.claims(claim.queue, claim.worker),
        keys.task(task_id),
        keys.events(claim.queue),
    ]


def ack(keys: Keys, claim: Claim, task_id: str) -> Operation[bool]:
    """End a committed claim: all that follows from it was accepted."""
    arguments: list[Argument] = [claim.worker, claim.number, task_id, "ended", ENDED_RECORD_TTL_MS]
    return Operation(_ACK, _ack_keys(keys, claim, task_id, claim.queue), arguments, bool)


def ack_continued(keys: Keys, claim: Claim, task_id: str) -> Operation[bool]:
    """End a committed claim whose task goes on under the same id from elsewhere."""
    arguments: list[Argument] = [claim.worker, claim.number, task_id, "continued"]
    arguments.append(LIVE_RECORD_TTL_MS)
    return Operation(_ACK, _ack_keys(keys, claim, task_id, claim.queue), arguments, bool)


def ack_dead(
    keys: Keys, claim: Claim, task_id: str, letter: Mapping[str, Argument]
) -> Operation[bool]:
    """End a committed claim whose task goes to the dead letters."""
    arguments: list[Argument] = [claim.worker, claim.number, task_id, "dead", LIVE_RECORD_TTL_MS]
    arguments += letters.fields_of(letter)
    return Operation(_ACK, _ack_keys(keys, claim, task_id, claim.queue), arguments, bool)


def ack_next(
    keys: Keys, claim: Claim, task_id: str, queue: str, message: Outgoing
) -> Operation[bool]:
    """End a committed claim and enqueue the next generation of its task in the same step."""
    arguments: list[Argument] = [claim.worker, claim.number, task_id, "next", LIVE_RECORD_TTL_MS]
    arguments += [message.token, message.generation, message.suffix, message.delay_ms]
    arguments += [message.raw, queue, message.name, message.expires_ms]
    return Operation(_ACK, _ack_keys(keys, claim, task_id, queue), arguments, bool)


def abandon(
    keys: Keys, claim: Claim, task_id: str, reason: str, *, tried: bool = True
) -> Operation[bool]:
    """Hand a committed task's consequences to whoever claims them next.

    Args:
        tried: whether this counts as an attempt to send them; only so many are made.
    """
    names = [
        keys.worker(claim.worker),
        keys.claims(claim.queue, claim.worker),
        keys.replay(claim.queue),
        keys.bell(claim.queue),
        keys.events(claim.queue),
        keys.task(task_id),
    ]
    arguments: list[Argument] = [claim.worker, claim.number, task_id, reason, int(tried)]
    return Operation(_ABANDON, names, arguments, bool)


def condemn(
    keys: Keys, claim: Claim, task_id: str, reason: str, outcome: bytes, state: str = "FAILURE"
) -> Operation[bool]:
    """Commit how a started task ends whose process was stopped, unless it had committed."""
    names = [
        keys.worker(claim.worker),
        keys.claims(claim.queue, claim.worker),
        keys.task(task_id),
        keys.events(claim.queue),
        keys.replay(claim.queue),
        keys.bell(claim.queue),
    ]
    arguments: list[Argument] = [claim.worker, claim.number, task_id, reason, outcome, state]
    return Operation(_CONDEMN, names, arguments, bool)


def overtime(keys: Keys, claim: Claim, task_id: str, detail: str) -> Operation[bool]:
    """Write down that a running task is over its soft timeout."""
    names = [
        keys.worker(claim.worker),
        keys.claims(claim.queue, claim.worker),
        keys.events(claim.queue),
    ]
    arguments: list[Argument] = [claim.worker, claim.number, task_id, detail]
    return Operation(_OVERTIME, names, arguments, bool)


def revoke(keys: Keys, task_id: str) -> Operation[bool]:
    """Leave word that a task is not to run; False when it had ended."""
    return Operation(_REVOKE, [keys.task(task_id)], [LIVE_RECORD_TTL_MS], bool)


def terminate(keys: Keys, claim: Claim, task_id: str) -> Operation[int]:
    """Order a worker to stop a task.

    Returns:
        ``ORDERED``; ``GONE`` when it does not run under this claim any more; ``TOO_OLD`` when that
        worker's relier does not follow such orders.
    """
    names = [keys.task(task_id), keys.worker(claim.worker)]
    return Operation(_TERMINATE, names, [claim.worker, claim.number, claim.queue], int)


def _ack_keys(keys: Keys, claim: Claim, task_id: str, target: str) -> list[str]:
    return [
        keys.worker(claim.worker),
        keys.claims(claim.queue, claim.worker),
        keys.task(task_id),
        keys.events(claim.queue),
        keys.list(target),
        keys.scheduled(target),
        keys.bell(target),
        keys.dead(claim.queue),
        keys.dead_letter(claim.queue, task_id),
        keys.checkpoint_files,
    ]


def _started(reply: list[Any]) -> Started:
    if len(reply) == 1:
        return Started(text(reply[0]))
    verdict, fence, starts, returns, root, generation, *more = reply
    done, revoked, *saved = more or (b"", b"")
    return Started(
        text(verdict),
        int(fence),
        int(starts),
        int(returns),
        text(root),
        int(generation),
        done,
        text(revoked),
        checkpoint.read(text(saved[0]), *saved[1:]) if saved else None,
    )
