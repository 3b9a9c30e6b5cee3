"""What becomes of a message that this worker cannot run, or must not."""

from __future__ import annotations

import logging

from relier.errors import PayloadIntegrityError, RelierError
from relier.protocol.identity import Claim
from relier.store import claiming
from relier.store.broker import Broker
from relier.store.claiming import Claimed, Unread
from relier.worker import delivery
from relier.worker.delivery import Named, UntrustedError
from relier.worker.membership import Membership

logger = logging.getLogger(__name__)

MOST_DEFERRALS = 20
"""1, 2, 4 .. 32 s: about nine minutes for a worker that can run it to come up."""

MOST_DEFERRALS_OF_NEWER = 120
"""About an hour. Few workers are new while a deploy begins, and an old one is as quick to take a
message again: of ten workers one may be new, and a message still finds it."""


def bury(
    broker: Broker,
    claim: Claim,
    who: Unread,
    error: str,
    name: str = "",
    *,
    reason: str = "unreadable",
) -> None:
    """Send a message that cannot be run to the dead letters, and say so."""
    letter = {"reason": reason, "error": error, "name": name}
    letter_id = who.task_id or f"raw-{claim.worker}-{claim.number}"
    if broker.store.run(claiming.bury(broker.keys, claim, who, letter_id, letter)):
        logger.error(
            "a message of queue %s cannot be run and is a dead letter now: %s; "
            "see `rl dlq inspect %s`",
            claim.queue,
            error,
            letter_id,
        )


def put_off(
    broker: Broker,
    claim: Claim,
    who: Unread,
    name: str,
    reason: str,
    error: RelierError,
    *,
    most_deferrals: int = MOST_DEFERRALS_OF_NEWER,
    buries: bool = True,
) -> str:
    """Leave a message to a newer worker, for a while.

    Args:
        buries: False to keep the claim of one that was left often enough.

    Returns:
        "deferred", "buried" or "spent" when it was left often enough, or "stale".
    """
    return broker.store.run(
        claiming.defer(
            broker.keys,
            claim,
            who,
            delay_ms=0,
            most_deferrals=most_deferrals,
            letter={"reason": reason, "error": f"{type(error).__name__}: {error}", "name": name},
            buries=buries,
        )
    )


def refuse(membership: Membership, claimed: Claimed, untrusted: UntrustedError) -> None:
    """Keep a message that nobody vouches for, as it came; nothing of it was believed.

    Its failure is not stored as a result: who may write no task may write no result either.
    """
    broker, claim = membership.broker, claimed.claim
    who = _says(claimed)
    error = PayloadIntegrityError(str(untrusted))
    text = f"{type(error).__name__}: {error}"
    if claimed.outcome is not None:
        # It ran, and its outcome stands. What follows from it is written in the message, though:
        # that is left to a worker which trusts it, and in the end both are kept.
        membership.abandon(claim, text, replays=claimed.replays, task_id=who.task_id)
    elif untrusted.newer and who.task_id:
        verdict = put_off(broker, claim, Unread(*who[:2]), who.name, "integrity", error)
        logger.error("message %s of queue %s: %s; %s", who.task_id, claim.queue, error, verdict)
    else:
        bury(broker, claim, Unread(*who[:2]), text, who.name, reason="integrity")


def _says(claimed: Claimed) -> Named:
    try:
        return delivery.named(delivery.read(claimed, plain=True))
    except delivery.UnreadableError:
        return Named("", "", "")
