"""What a restarted server has forgotten is given back by the process that knows better."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from relier.errors import RedisConnectionError
from relier.store import claiming, fleet
from relier.worker.audit import Audit

if TYPE_CHECKING:
    from relier.worker.membership import Membership

logger = logging.getLogger(__name__)


class Comparison:
    """Hold the claims that the server counts as started against those of this process.

    Args:
        membership: this process in the fleet.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._audit = Audit()
        self._made_at_s = 0.0

    def served_by(self, run_id: str) -> None:
        """Take note of the server's run; another one than before may have forgotten."""
        self._audit.served_by(run_id)

    def make_at_times(self) -> None:
        """Once a heartbeat TTL, while there is doubt, give back what only the server believes in.

        What is owed comes first: it says more of a claim than that nobody works under it.
        """
        membership = self._membership
        now_s, ttl_s = time.monotonic(), membership.broker.settings.heartbeat_ttl_s
        if not self._audit.open or membership.debts or now_s - self._made_at_s < ttl_s:
            return
        self._made_at_s = now_s
        try:
            self._make()
        except RedisConnectionError:
            raise
        except Exception:
            # The beat runs this, and a beat that ends would have a healthy worker reaped.
            logger.exception("could not compare claims with the server's; trying again")

    def _make(self) -> None:
        membership = self._membership
        worker, broker = membership.worker_id, membership.broker
        started = fleet.started_claims(broker.store, worker, sorted(membership.queues))
        lapsed: dict[str, list[str]] = {}
        for claim in self._audit.look(started, membership.in_hand()):
            lapsed.setdefault(claim.queue, []).append(claim.number)
        reason = "the server had forgotten how it ended"
        for queue, numbers in lapsed.items():
            operation = claiming.disown(broker.keys, worker, queue, numbers, reason)
            logger.warning(
                "a restarted server took %d tasks of queue %s for running that no process here "
                "runs; they go back",
                broker.store.run(operation),
                queue,
            )
