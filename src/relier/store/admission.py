"""Admission in the store: what `enqueue` is told, what it counts, and how to forget that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from relier.errors import AdmissionRejectedError, AdmissionTooLargeError
from relier.protocol.admission import Rules, Tenant
from relier.store.client import Store
from relier.store.keys import Keys
from relier.store.operations import Argument, text

WINDOW, SMOOTH = "window", "smooth"
CLUSTER = ""
"""Stands for the cluster where a limit is named by its tenant."""

_REFUSED, _NEVER = -1, -1
_MOST_TENANTS = 100
_SCOPES = {
    "cluster": ("cluster", "RELIER_ADMISSION_LIMIT"),
    "tenant": ("tenant", "RELIER_ADMISSION_TENANT_LIMIT, or the task's admission_limit"),
    "depth": ("queue", "RELIER_ADMISSION_MAX_QUEUE_DEPTH"),
}
"""Whose limit the script names, and what sets it."""


class Admission(NamedTuple):
    """What a dispatch is asked before it is accepted.

    Args:
        rules: the limits.
        tenants: of each message, or None when it has none.
        suffixes: of the lists of the queue, each behind a bar.
    """

    rules: Rules
    tenants: Sequence[Tenant | None]
    suffixes: str

    def words(self, keys: Keys) -> tuple[list[str], list[Argument]]:
        """Return the keys and arguments that it adds to `enqueue`."""
        if not any(self.tenants):
            return _words(keys, self.rules, self.suffixes, ())
        tenants = tuple(dict.fromkeys(each for each in self.tenants if each is not None))
        names, arguments = _words(keys, self.rules, self.suffixes, tenants)
        first = 2 if self.rules.limit else 1
        numbers = {each: number for number, each in enumerate(tenants, start=first)}
        return names, arguments + [0 if each is None else numbers[each] for each in self.tenants]

    def raise_refusal(self, reply: Any) -> None:
        """Return if the reply is no refusal.

        Raises:
            AdmissionRejectedError: there is no room now.
            AdmissionTooLargeError: there never is, for so many at once.
        """
        if not reply or reply[0] != _REFUSED:
            return
        _, wait_ms, scope, limit, at_once, asked = reply
        whose, setting = _SCOPES[text(scope)]
        what = f"{limit} waiting tasks" if whose == "queue" else self._per_window(limit, at_once)
        if wait_ms == _NEVER:
            raise AdmissionTooLargeError(
                f"{asked} tasks at once are more than the {whose}'s limit of {what} ever admits; "
                f"they were not enqueued. Send at most {at_once} at a time, or raise {setting}."
            )
        raise AdmissionRejectedError(wait_ms / 1000, f"the {whose}'s limit of {what} is reached")

    def _per_window(self, limit: int, at_once: int) -> str:
        burst = f" ({at_once} at once)" if at_once != limit else ""
        return f"{limit} tasks in {self.rules.window_ms / 1000:g} s{burst}"


@lru_cache(maxsize=256)
def _words(
    keys: Keys, rules: Rules, suffixes: str, tenants: tuple[Tenant, ...]
) -> tuple[list[str], list[Argument]]:
    mode = SMOOTH if rules.smooth else WINDOW
    limits = [Tenant(CLUSTER, rules.limit), *tenants] if rules.limit else tenants
    names = [keys.tenants, *[keys.admission(mode, name) for name, _ in limits]]
    arguments: list[Argument] = [mode, rules.window_ms, rules.max_queue_depth, suffixes]
    arguments.append(len(limits))
    for name, limit in limits:
        arguments += (name, limit, rules.at_once(limit))
    return names, arguments


class Count(NamedTuple):
    """What one limit has admitted, as the last dispatch that it admitted knew it.

    Args:
        tenant: "" for the cluster.
        smooth: in which mode it counts.
        used: how many are taken now.
        at_once: of how many.
        limit: how many a window admits.
        window_ms: the window.
        wait_ms: how long one more would have to wait; 0 when there is room.
    """

    tenant: str
    smooth: bool
    used: int
    at_once: int
    limit: int
    window_ms: int
    wait_ms: int


def counts(store: Store) -> list[Count]:
    """Return what counts now: the cluster's, then those of the latest tenants, fullest first."""
    redis: Any = store.redis
    latest = redis.zrange(store.keys.tenants, 0, _MOST_TENANTS - 1, desc=True)
    tenants = [CLUSTER, *(each.decode() for each in latest)]
    with redis.pipeline(transaction=False) as pipe:
        for tenant in tenants:
            pipe.lrange(store.keys.admission(WINDOW, tenant), 0, -1)
            pipe.get(store.keys.admission(SMOOTH, tenant))
        replies = pipe.execute()
    now_ms = _now_ms(redis)
    found: list[Count] = []
    for index, tenant in enumerate(tenants):
        log, paid = replies[2 * index : 2 * index + 2]
        found += [_of_log(tenant, log, now_ms)] if log else []
        found += [_of_rate(tenant, paid, now_ms)] if paid else []
    live = [each for each in found if each.used]
    return sorted(live, key=lambda each: (each.tenant != CLUSTER, -each.used / each.at_once))


def reset(store: Store, tenant: str | None = None) -> int:
    """Forget what was admitted, of one tenant or altogether; return how many counts there were."""
    redis: Any = store.redis
    keys = store.keys
    if tenant is not None:
        tenants = [tenant]
    else:
        tenants = [CLUSTER, *(each.decode() for each in redis.zrange(keys.tenants, 0, -1))]
    names = [keys.admission(mode, each) for each in tenants for mode in (WINDOW, SMOOTH)]
    with redis.pipeline(transaction=True) as pipe:
        pipe.unlink(*names)
        if tenant is None:
            pipe.unlink(keys.tenants)
        else:
            pipe.zrem(keys.tenants, tenant)
        return int(pipe.execute()[0])


def _of_log(tenant: str, log: Sequence[bytes], now_ms: float) -> Count:
    # As lua/lib/window.lua writes it.
    entries = [tuple(map(int, each.split(b":"))) for each in log]
    *_, limit, window_ms = entries[-1]
    live = [(at, n) for at, n, *_ in entries if at + window_ms > now_ms]
    used, wait_ms = sum(n for _, n in live), 0.0
    excess = used + 1 - limit
    for at, n in live:
        if excess <= 0:
            break
        excess, wait_ms = excess - n, at + window_ms - now_ms
    return Count(tenant, False, used, limit, limit, window_ms, math.ceil(wait_ms))


def _of_rate(tenant: str, value: bytes, now_ms: float) -> Count:
    paid_ms, limit, burst, window_ms = map(float, value.split(b":"))
    interval_ms = window_ms / limit
    debt_ms = max(paid_ms - now_ms, 0)
    wait_ms = max(debt_ms + (1 - burst) * interval_ms, 0)
    used = math.ceil(debt_ms / interval_ms)
    return Count(tenant, True, used, int(burst), int(limit), int(window_ms), math.ceil(wait_ms))


def _now_ms(redis: Any) -> float:
    seconds, micros = redis.time()
    return int(seconds) * 1000 + int(micros) / 1000
