"""Looks at the server: what it is, what it does with its data, how much room it has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from relier.errors import RelierError
from relier.ops.doctor.checks import FAILURE, OK, UNKNOWN, WARNING, Check, some
from relier.store import preflight, reading, scripts
from relier.store.broker import Broker
from relier.store.fleet import known_queues
from relier.store.reading import health

_LITTLE_HEADROOM = 0.2
_SKEW_WORTH_A_WORD_MS = 1000
_SYNCS = {
    "always": (OK, "every write is on the disk before it is answered"),
    "everysec": (OK, "a power cut may cost what was accepted in the last second"),
    "no": (WARNING, "a power cut may cost what was accepted in the last 30 seconds or so"),
}


def required(broker: Broker, name: str) -> Check:
    """Return what preflight finds under a name, too."""
    found = preflight.LOOKS[name](broker)
    if found.ok is None:
        return Check(found.name, UNKNOWN, found.found, found.fix)
    status = OK if found.ok else FAILURE
    return Check(found.name, status, found.found, "" if found.ok else found.fix)


def sync(broker: Broker) -> Check:
    """Look how soon what is written is on the disk."""
    policy = preflight.parameter(broker, "appendfsync")
    if policy is None:
        return Check("fsync", UNKNOWN, "appendfsync cannot be read", "check it with your provider")
    status, found = _SYNCS.get(policy, (WARNING, "not known to relier"))
    fix = "" if status == OK else "`CONFIG SET appendfsync everysec` and the same in redis.conf"
    return Check("fsync", status, f"appendfsync is {policy!r}: {found}", fix)


def described(info: dict[str, Any]) -> Iterator[Check]:
    """Yield what the server's own INFO says."""
    yield _writes(info)
    yield _memory(info)
    yield _role(info)
    yield from _replicas(info)
    yield from _cluster(info)
    yield from _clients(info)


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


def _role(info: dict[str, Any]) -> Check:
    if info.get("role") in (None, "master"):
        return Check("role", OK, "master")
    master = f"{info.get('master_host')}:{info.get('master_port')}"
    return Check(
        "role",
        FAILURE,
        f"this server is a replica of {master} and takes no writes",
        f"name the master, {master}, in the URL",
    )


def _replicas(info: dict[str, Any]) -> Iterator[Check]:
    count = int(info.get("connected_slaves", 0))
    if info.get("role") not in (None, "master"):
        return
    replicas = [info.get(f"slave{number}", {}) for number in range(count)]
    behind = [each for each in replicas if each.get("state") != "online"]
    if not count:
        yield Check("replicas", OK, "none: this server is the only copy")
    elif behind:
        names = some(f"{each.get('ip')}:{each.get('port')}" for each in behind)
        fix = "look into its log: a failover to it would lose what it has not got"
        yield Check("replicas", WARNING, f"{len(behind)} of {count} not in step: {names}", fix)
    else:
        yield Check("replicas", OK, f"{count} in step")


def _cluster(info: dict[str, Any]) -> Iterator[Check]:
    if int(info.get("cluster_enabled", 0)):
        yield Check(
            "cluster",
            FAILURE,
            "this server is a node of a Redis Cluster",
            "use one server, with replicas: relier moves a task between keys in one step, which a "
            "cluster only does within a slot",
        )


def _clients(info: dict[str, Any]) -> Iterator[Check]:
    now, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    if most and most - now < most * _LITTLE_HEADROOM:
        fix = "raise maxclients: who finds no place can neither dispatch nor say that it lives"
        yield Check("connections", WARNING, f"{now:,} of {most:,} in use", fix)


def cached_scripts(broker: Broker) -> Check:
    """Load every script; the server then has them for whoever calls."""
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


def clock(broker: Broker) -> Check:
    """Compare the server's clock with this machine's."""
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


def data(broker: Broker) -> Check:
    """Look whether anything in this database is relier's."""
    queues = known_queues(broker.store)
    if queues:
        return Check("data", OK, f"{len(queues)} queues: {some(queues)}")
    others = health.key_count(broker.store)
    where = f"under the prefix {broker.keys.prefix!r}" if broker.keys.prefix else "without a prefix"
    if not others:
        return Check("data", OK, "the database is empty: nothing was dispatched yet")
    return Check(
        "data",
        WARNING,
        f"no queue of relier's {where}, but {others:,} other keys",
        "check --url (the database is its last number) and --prefix; if nothing was dispatched "
        "yet, this is as it should be",
    )


def _mb(count: int) -> str:
    return f"{count / 2**20:,.0f} MB"
