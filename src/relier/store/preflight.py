"""What the server must be for the guarantees to hold, checked before a worker starts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from redis import exceptions

from relier.errors import ConfigurationError
from relier.store.broker import Broker
from relier.store.willingness import unwillingness

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2


class Finding(NamedTuple):
    """One check.

    Args:
        name: what was checked.
        ok: whether it is as it must be; None when the server does not tell.
        found: what was found.
        fix: what to do when it is not.
    """

    name: str
    ok: bool | None
    found: str
    fix: str


def findings(broker: Broker) -> list[Finding]:
    """Look at the server.

    Raises:
        RedisConnectionError: it cannot be reached.
        UnsupportedServerError: it is too old.
    """
    version = broker.store.check_server()
    return [
        Finding("version", True, version, ""),
        _setting(
            broker,
            "persistence",
            "appendonly",
            "yes",
            "switch AOF on: `CONFIG SET appendonly yes` and `appendonly yes` in redis.conf; "
            "without it a restart of Redis loses tasks",
        ),
        _setting(
            broker,
            "eviction",
            "maxmemory-policy",
            "noeviction",
            "`CONFIG SET maxmemory-policy noeviction` and the same in redis.conf; any other "
            "policy lets Redis delete tasks when memory is short",
        ),
    ]


def await_willingness(broker: Broker, on_wait: Callable[[], None]) -> None:
    """Wait for as long as the server answers and takes no writes.

    Args:
        on_wait: called while it waits; what it raises ends that.
    """
    waits = False
    while reason := unwillingness(broker.store):
        if not waits:
            logger.warning(
                "Redis at %s takes no writes now (%s): waiting until it does; nothing is lost",
                broker.address.public,
                reason,
            )
        waits = True
        on_wait()
        time.sleep(_LOOK_EVERY_S)
    if waits:
        logger.info("Redis at %s takes writes again", broker.address.public)


def preflight(broker: Broker) -> None:
    """Refuse a server that would lose tasks; in development only warn.

    Raises:
        ConfigurationError: AOF is off, the eviction policy is not noeviction, or (in development,
            too) checkpoints cannot be written to their folder.
    """
    if broker.checkpoint_files is not None:
        broker.checkpoint_files.check()
    wrong = [finding for finding in findings(broker) if finding.ok is False]
    if not wrong:
        return
    text = "; ".join(f"{finding.found}: {finding.fix}" for finding in wrong)
    if broker.settings.env == "development":
        logger.warning("Redis at %s may lose tasks: %s", broker.address.public, text)
        return
    raise ConfigurationError(
        f"Redis at {broker.address.public} may lose tasks: {text}. "
        "(RELIER_ENV=development makes this a warning.)"
    )


def _setting(broker: Broker, name: str, parameter: str, wanted: str, fix: str) -> Finding:
    try:
        found = str(broker.store.redis.config_get(parameter).get(parameter, ""))
    except exceptions.ResponseError:
        # Hosted servers often forbid CONFIG; they also document what they run.
        return Finding(name, None, f"{parameter} cannot be read", "check it with your provider")
    return Finding(name, found == wanted, f"{parameter} is {found!r}", fix)
