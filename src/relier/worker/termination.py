"""Stop a task that somebody cancelled: its body ends, and its result says REVOKED.

The order comes with each beat until one says that it was carried out, so that no lost reply loses
it. It is carried out where Celery's own callbacks run, so that the death
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
        requests = {each.claim.tag: each for each in self._membership.living_requests()}
        for tag in tags:
            request = requests.get(tag)
            if request is not None and not request.begun:
                # Its process has not said yet that it took it up: the next beat says it again.
                continue
            if request is not None and request.end_by_order():
                logger.warning("%s[%s] was cancelled and is stopped", request.name, request.id)
                self._bodies.kill(request)
            self._membership.stopped.add(tag)
