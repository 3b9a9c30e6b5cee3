"""Is this server, with this fleet, fit to keep the guarantees?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relier.errors import RelierError
from relier.ops import fleet
from relier.store import preflight, reading, scripts
from relier.store.broker import Broker

OK, WARNING, FAILURE, UNKNOWN = "ok", "warning", "failure", "unknown"

_LITTLE_HEADROOM = 0.2
_SKEW_WORTH_A_WORD_MS = 1000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        status: "ok", "warning", "failure", or "unknown" when the server does not tell.
        found: what was found.
        fix: what to do; "" when nothing needs to be done.
    """

    name: str
    status: str
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """All checks; ``healthy`` when none failed."""

    server: str
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Return whether no check failed."""
        return all(check.status != FAILURE for check in self.checks)


def examine(broker: Broker) -> Examination:
    """Look at the server and the fleet.

    Raises:
        RedisConnectionError: the server cannot be reached.
        UnsupportedServerError: it is too old.
    """
    began_s = time.perf_counter()
    reading.now_ms(broker.store)
    took_ms = (time.perf_counter() - began_s) * 1000
    checks = [Check("reachable", OK, f"answered in {took_ms:.1f} ms")]
    checks += [_known(finding) for finding in preflight.findings(broker)]
    info = reading.info(broker.store)
    for check in (_writes, _memory, _replicas):
        checks.append(check(info))
    for look in _LOOKS:
        checks.append(look(broker))
    checks += _shutdown(broker)
    return Examination(broker.address.public, tuple(checks))


def _known(finding: preflight.Finding) -> Check:
    if finding.ok is None:
        return Check(finding.name, UNKNOWN, finding.found, finding.fix)
    status = OK if finding.ok else FAILURE
    return Check(finding.name, status, finding.found, "" if finding.ok else finding.fix)


def _writes(info: dict[str, Any]) -> Check:
    status = str(info.get("aof_last_write_status", "ok"))
    if status == "ok":
        return Check("disk writes", OK, "the last write of the append-only file succeeded")
    return Check(
        "disk writes",
        FAILURE,
        f"the last write of the append-only file: {status}",
        "free space on the server's disk; until then what it accepts may not survive a restart",
    )


def _memory(info: dict[str, Any]) -> Check:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    limit = most or int(info.get("total_system_memory", 0))
    if not limit:
        return Check("memory", UNKNOWN, f"{_mb(used)} used, limit not known")
    found = f"{_mb(used)} of {_mb(limit)} used" + ("" if most else " (no maxmemory: all of it)")
    if limit - used >= limit * _LITTLE_HEADROOM:
        return Check("memory", OK, found)
    fix = "raise maxmemory or drain the queues: a full server refuses dispatches"
    return Check("memory", WARNING, found, fix)


def _replicas(info: dict[str, Any]) -> Check:
    if info.get("role") not in (None, "master"):
        return Check(
            "role", FAILURE, f"this server is a {info['role']}", "name the master in the URL"
        )
    count = int(info.get("connected_slaves", 0))
    return Check("role", OK, f"master with {count} replica{'' if count == 1 else 's'}")


def _scripts(broker: Broker) -> Check:
    names = scripts.names()
    try:
        for name in names:
            reading.load_script(broker.store, scripts.load(name).source)
    except RelierError as error:
        return Check(
            "scripts",
            FAILURE,
            f"the server does not load {name}: {error}",
            "allow this user EVAL, EVALSHA and SCRIPT LOAD, and all keys (~*)",
        )
    return Check("scripts", OK, f"all {len(names)} load")


def _workers(broker: Broker) -> Check:
    members = fleet.workers(broker.store)
    if not members:
        return Check(
            "workers",
            WARNING,
            "none: what is dispatched waits",
            "start one: `rl worker start -A yourapp`",
        )
    names = ", ".join(member.name for member in members[:3])
    more = f" and {len(members) - 3} more" if len(members) > 3 else ""
    return Check("workers", OK, f"{len(members)}: {names}{more}")


def _clock(broker: Broker) -> Check:
    skew_ms = reading.now_ms(broker.store) - int(time.time() * 1000)
    if abs(skew_ms) < _SKEW_WORTH_A_WORD_MS:
        return Check("clock", OK, f"{skew_ms:+d} ms from this machine's")
    return Check(
        "clock",
        WARNING,
        f"{skew_ms / 1000:+.1f} s from this machine's",
        "run NTP on both: an `eta` is read by the machine that dispatches it (relier compares "
        "no two clocks for anything else)",
    )


def _shutdown(broker: Broker) -> list[Check]:
    """Compare how long workers take to stop with how long they are given, where that is known."""
    own = broker.settings
    known = [("here", own.graceful_shutdown_timeout_s, own.termination_grace_period_s)]
    known += [(w.name, w.grace_s, w.killed_after_s) for w in fleet.workers(broker.store)]
    given = [(name, takes_s, has_s) for name, takes_s, has_s in known if has_s is not None]
    late = [each for each in given if each[1] > each[2]]
    if not given:
        return []
    if not late:
        return [Check("shutdown", OK, "every worker has the time it takes to stop")]
    name, takes_s, has_s = late[0]
    more = f", and {len(late) - 1} more" if len(late) > 1 else ""
    return [
        Check(
            "shutdown",
            WARNING,
            f"killed {has_s:g} s after SIGTERM, but may take {takes_s:g} s to stop ({name}{more})",
            "raise terminationGracePeriodSeconds (and RELIER_TERMINATION_GRACE_PERIOD), or lower "
            "RELIER_GRACEFUL_SHUTDOWN_TIMEOUT: what is cut off is charged an interruption",
        )
    ]


_LOOKS: tuple[Callable[[Broker], Check], ...] = (_scripts, _workers, _clock)


def _mb(count: int) -> str:
    return f"{count / 2**20:,.0f} MB"
