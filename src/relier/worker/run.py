"""One execution of one task under one claim: what its steps know of it."""

from __future__ import annotations

import logging
import time
from typing import Any, TypeVar

from celery.app.task import Context

from relier.errors import RedisConnectionError
from relier.protocol.identity import Claim, Identity
from relier.store.broker import Broker
from relier.store.operations import Operation
from relier.store.running import Started
from relier.worker.checkpoints import Checkpoints
from relier.worker.grip import Grip
from relier.worker.publish import Consequence, Outbox
from relier.worker.timed import Timed

logger = logging.getLogger(__name__)
T = TypeVar("T")

_RETRY_PAUSE_S = 0.2
_COMPLAIN_EVERY_S = 5.0


class Run:
    """One execution of one task under one claim."""

    __slots__ = (
        "announced",
        "beginning",
        "checkpoints",
        "claim",
        "grip",
        "identity",
        "key",
        "outbox",
        "replaced",
        "request",
        "started",
        "started_at",
        "task",
        "timed",
    )

    def __init__(self, task: Any, request: Context, grip: Grip, who: Identity) -> None:
        self.task = task
        self.request = request
        self.grip = grip
        self.claim: Claim = grip.claim
        self.identity = who
        self.outbox = Outbox()
        self.replaced = False
        self.key = ""
        self.announced = False
        self.beginning: Operation[Started] | None = None
        self.checkpoints: Checkpoints | None = None
        self.started: Started = Started("stale")
        self.started_at = time.monotonic()
        self.timed: Timed | None = None

    @property
    def parent(self) -> Consequence:
        """Return the parent that this run's consequences name."""
        return Consequence(self.started.root, self.identity.task_id, self.started.generation)


def persist(broker: Broker, operation: Operation[T], run: Run) -> T:
    """Run an operation until Redis answers; the claim is ours until somebody reaps it."""
    complained = 0.0
    while True:
        try:
            return broker.store.run(operation)
        except RedisConnectionError as error:
            if time.monotonic() - complained > _COMPLAIN_EVERY_S:
                complained = time.monotonic()
                logger.warning(
                    "%s[%s] waits for Redis to %s: %s",
                    run.identity.name,
                    run.identity.task_id,
                    operation.script.name,
                    error,
                )
            time.sleep(_RETRY_PAUSE_S)
