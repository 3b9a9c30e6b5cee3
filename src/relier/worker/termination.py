"""Stop a task that somebody cancelled: its body ends, and its result says REVOKED.

The order comes with a beat. It is carried out where Celery's own callbacks run, so that the death
of the process is known to be no accident.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from relier.worker.membership import Membership
from relier.worker.stopping import Bodies

logger = logging.getLogger(__name__)


class Termination:
    """Carries out orders to stop tasks.

    Args:
        membership: what this process holds.
        consumer: Celery's.
        bodies: what its pool can do to stop them. Where it can do nothing the claim is taken away,
            and nothing that the body still does counts.
    """

    def __init__(self, membership: Membership, consumer: Any, bodies: Bodies) -> None:
        self._membership = membership
        self._consumer = consumer
        self._bodies = bodies

    def hear(self, tags: Collection[str]) -> None:
        """Stop the tasks that run under these claims; safe to call from any thread."""
        hub = self._consumer.hub
        if self._bodies.can_be_stopped and hub is not None:
            hub.call_soon(self._stop, tags)
        else:
            # Under solo the main thread is inside the very body.
            self._stop(tags)

    def _stop(self, tags: Collection[str]) -> None:
        for request in self._membership.living_requests():
            if request.claim.tag in tags and request.begun and request.end_by_order():
                logger.warning("%s[%s] was cancelled and is stopped", request.name, request.id)
                self._bodies.kill(request)
