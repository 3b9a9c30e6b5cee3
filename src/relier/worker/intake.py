"""What becomes of each message that a channel claimed, until somebody holds it."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from relier.errors import ConfigurationError
from relier.store import claiming
from relier.store.claiming import Claimed, Unread
from relier.worker import delivery, refusal
from relier.worker.membership import Membership

logger = logging.getLogger(__name__)

_COMPLAIN_EVERY_S = 30.0
_DEFERRALS = 30


class Intake:
    """The hands of one channel.

    Args:
        channel: where messages are delivered to its consumers.
        membership: this process, which holds what is delivered.
        no_ack: the channel's queues whose consumers never acknowledge.
    """

    def __init__(self, channel: Any, membership: Membership, no_ack: set[str]) -> None:
        self._channel = channel
        self._membership = membership
        self._broker = membership.broker
        self._no_ack = no_ack
        self._complained: dict[str, float] = {}

    def deliver(self, claimed: Claimed) -> None:
        """Deliver one message; whatever is wrong with it stays its own affair."""
        if self._membership.draining:
            return  # nobody holds it here, so the drain gives it back
        try:
            self._deliver_or_refuse(claimed)
        except ConfigurationError as error:
            # Not even the dead letters can take it. Nobody holds it now, so it comes back with the
            # next reconcile; a worker that ended of it would hand it to the next.
            self._let_go(claimed.claim.tag)
            self.complain(str(error))

    def _deliver_or_refuse(self, claimed: Claimed) -> None:
        try:
            delivery.verify(claimed, self._broker.keyring)
            payload = delivery.read(claimed)
            held = delivery.adopt(claimed, payload)
            early_ms = delivery.early_by_ms(payload)
            if early_ms and held.outcome is None:
                self._put_off(held, early_ms)
                return
            self._membership.hold(claimed.claim.tag, held)
            self._channel.connection._deliver(payload, claimed.claim.queue)
            if claimed.claim.queue in self._no_ack:
                self._membership.end(claimed.claim.tag, "not to be acknowledged")
        except delivery.UntrustedError as error:
            refusal.refuse(self._membership, claimed, error)
        except delivery.UnreadableError as error:
            self.bury(claimed, str(error))
        except self._channel.connection_errors as error:
            if not isinstance(error, KeyError):
                raise
            self.bury(claimed, f"cannot be delivered: {error!r}")
        except Exception as error:  # noqa: BLE001 - one message's trouble must stay its own
            self.bury(claimed, f"cannot be delivered: {error!r}")

    def _put_off(self, held: Any, delay_ms: int) -> None:
        broker = self._broker
        letter = {"reason": "eta", "error": "its eta never came"}
        broker.store.run(
            claiming.defer(
                broker.keys,
                held.claim,
                held.who,
                delay_ms=delay_ms,
                most_deferrals=_DEFERRALS,
                letter=letter,
            )
        )

    def bury(self, claimed: Claimed, error: str) -> None:
        """Send a message that cannot be read or delivered to the dead letters."""
        if claimed.outcome is not None:
            # It had committed: its outcome must not be lost for what its message looks like.
            self._membership.abandon(claimed.claim, error, replays=claimed.replays)
            return
        self._let_go(claimed.claim.tag)
        refusal.bury(self._broker, claimed.claim, Unread("", ""), error)

    def _let_go(self, tag: str) -> None:
        self._membership.free(tag)
        if tag in self._channel.qos._delivered:
            # It failed in its consumer's hands: the credit that it took must come back.
            self._channel.qos.ack(tag)

    def complain(self, wrong: str) -> None:
        """Say that a key is not what it should be, at times."""
        if monotonic() - self._complained.get(wrong, float("-inf")) > _COMPLAIN_EVERY_S:
            self._complained[wrong] = monotonic()
            logger.error("%s; what needs that key waits until it is removed", wrong)
