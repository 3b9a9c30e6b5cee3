"""What the server must be for the guarantees to hold, checked before a worker starts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from redis import exceptions

from relier.errors import ConfigurationError, RedisPermissionError
from relier.store.broker import Broker
from relier.store.client import judge
from relier.store.rights import rights
from relier.store.willingness import unwillingness

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
_SHOWN = 6


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


def version(broker: Broker) -> Finding:
    """Look how old the server is.

    Raises:
        UnsupportedServerError: it is too old.
    """
    return Finding("version", True, broker.store.check_server(), "")


def permissions(broker: Broker) -> Finding:
    """Look whether the user of the URL may do all that relier does."""
    found = rights(broker.store)
    whose = f"user {found.user!r}" if found.user else "this user"
    if found.enough:
        return Finding("rights", True, f"{whose} may run every command that is needed", "")
    lacking = [*found.patterns, *found.forbidden]
    more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
    return Finding(
        "rights",
        False,
        f"{whose} may not use {', '.join(lacking[:_SHOWN])}{more}",
        f"as an administrator of Redis: {found.grant} (and ACL SAVE, or the same in the ACL file)",
    )


def persistence(broker: Broker) -> Finding:
    """Look whether a restart of the server would lose tasks."""
    return _setting(
        broker,
        "persistence",
        "appendonly",
        "yes",
        "switch AOF on: `CONFIG SET appendonly yes` and `appendonly yes` in redis.conf; "
        "without it a restart of Redis loses tasks",
    )


def eviction(broker: Broker) -> Finding:
    """Look whether the server would delete tasks to make room."""
    return _setting(
        broker,
        "eviction",
        "maxmemory-policy",
        "noeviction",
        "`CONFIG SET maxmemory-policy noeviction` and the same in redis.conf; any other "
        "policy lets Redis delete tasks when memory is short",
    )


LOOKS: Mapping[str, Callable[[Broker], Finding]] = {
    "version": version,
    "rights": permissions,
    "persistence": persistence,
    "eviction": eviction,
}


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
        RedisPermissionError: the user of the URL may not run all that the scripts run (in
            development, too: a script that is stopped halfway leaves half a move behind).
        UnsupportedServerError: the server is too old.
    """
    if broker.checkpoint_files is not None:
        broker.checkpoint_files.check()
    found = [look(broker) for look in LOOKS.values()]
    wrong = {finding.name: finding for finding in found if finding.ok is False}
    if "rights" in wrong:
        raise RedisPermissionError(
            f"Redis at {broker.address.public}: {wrong['rights'].found}. Grant it, "
            f"{wrong['rights'].fix}"
        )
    if not wrong:
        return
    text = "; ".join(f"{finding.found}: {finding.fix}" for finding in wrong.values())
    if broker.settings.env == "development":
        logger.warning("Redis at %s may lose tasks: %s", broker.address.public, text)
        return
    raise ConfigurationError(
        f"Redis at {broker.address.public} may lose tasks: {text}. "
        "(RELIER_ENV=development makes this a warning.)"
    )


_IN_INFO = {"appendonly": "aof_enabled", "maxmemory-policy": "maxmemory_policy"}
"""Where INFO tells what CONFIG GET may not: hosted servers often forbid CONFIG."""


def parameter(broker: Broker, name: str) -> str | None:
    """Return one of the server's settings; None when it does not tell."""
    redis = broker.store.redis
    try:
        return str(redis.config_get(name).get(name, ""))
    except exceptions.ResponseError:
        pass  # asked of INFO instead
    if name not in _IN_INFO:
        return None
    try:
        found = str(redis.info().get(_IN_INFO[name], ""))
    except exceptions.NoPermissionError as error:
        judge(error, broker.address, out_of_time=True)
        raise
    return {"": None, "0": "no", "1": "yes"}.get(found, found)


def _setting(broker: Broker, name: str, setting: str, wanted: str, fix: str) -> Finding:
    found = parameter(broker, setting)
    if found is None:
        return Finding(name, None, f"{setting} cannot be read", "check it with your provider")
    return Finding(name, found == wanted, f"{setting} is {found!r}", fix)
