"""All looks in their order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from relier.errors import RedisPermissionError
from relier.ops.doctor import celery_app, fleet, server, settings
from relier.ops.doctor.celery_app import AppFacts
from relier.ops.doctor.checks import FAILURE, OK, WARNING, Check, permitted
from relier.store import preflight, reading
from relier.store.broker import Broker


@dataclass(frozen=True, slots=True)
class Examination:
    """All checks."""

    server: str
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Return whether no check failed."""
        return all(check.status != FAILURE for check in self.checks)

    @property
    def warnings(self) -> int:
        """Return how many checks ended with a warning."""
        return sum(check.status == WARNING for check in self.checks)


def examine(broker: Broker, app: AppFacts | None = None) -> Examination:
    """Look at the server and the fleet, and at an app's settings when there is one.

    Raises:
        RedisConnectionError: the server cannot be reached.
        UnsupportedServerError: it is too old.
    """
    return Examination(broker.address.public, tuple(_checks(broker, app)))


def _checks(broker: Broker, app: AppFacts | None) -> Iterator[Check]:
    yield _reachable(broker)
    for name in preflight.LOOKS:
        yield from permitted(broker.address, name, partial(server.required, broker, name))
    yield from permitted(broker.address, "fsync", partial(server.sync, broker))
    yield from permitted(
        broker.address, "server", lambda: server.described(reading.info(broker.store))
    )
    for name, look in (
        ("scripts", server.cached_scripts),
        ("clock", server.clock),
        ("data", server.data),
        ("workers", fleet.workers),
        ("death notice", fleet.liveness),
        ("orphaned claims", fleet.orphans),
        ("backlog", fleet.backlog),
        ("shutdown", fleet.shutdown),
    ):
        yield from permitted(broker.address, name, partial(look, broker))
    yield settings.secret(broker.settings)
    if app is not None:
        yield from celery_app.judge(app)


def _reachable(broker: Broker) -> Check:
    began_s = time.perf_counter()
    try:
        with reading.answered(broker.address):
            reading.now_ms(broker.store)
    except RedisPermissionError:
        pass  # a refusal is an answer; what is refused is said among the rights
    return Check("reachable", OK, f"answered in {(time.perf_counter() - began_s) * 1000:.1f} ms")
