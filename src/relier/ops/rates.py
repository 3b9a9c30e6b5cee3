"""How fast tasks come into a queue and end, as its latest events tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relier.store import reading
from relier.store.client import Store

_WINDOW_MS = 10_000
_MOST_EVENTS, _LEAST_EVENTS, _ALL_EVENTS = 1000, 50, 10_000
"""Looked at in one queue; in each of very many; and in all together, about."""

_IN = {"accepted", "released"}
_OUT = {"ended", "dead"}


@dataclass(frozen=True, slots=True)
class Rate:
    """Tasks per second over the last ``over_s`` seconds.

    Args:
        in_per_s: accepted, to run at once or later, and dead letters released.
        out_per_s: ended, or become dead letters.
        over_s: at most 10; less in a busy queue, of which only the latest events are looked at.
    """

    in_per_s: float
    out_per_s: float
    over_s: float


def of(store: Store, queues: Sequence[str], now_ms: int) -> dict[str, Rate]:
    """Return the rates of some queues; what Redis is asked for stays bounded."""
    most = max(_LEAST_EVENTS, min(_MOST_EVENTS, _ALL_EVENTS // max(len(queues), 1)))
    return {queue: _rate(store, queue, now_ms, most) for queue in queues}


def _rate(store: Store, queue: str, now_ms: int, most: int) -> Rate:
    found = reading.events_before(store, queue, oldest_ms=now_ms - _WINDOW_MS, count=most)
    window_ms = _WINDOW_MS
    if len(found) == most:
        window_ms = max(now_ms - found[-1].at_ms, 1)
    over_s = window_ms / 1000
    came = sum(_came_in(event.fields) for event in found)
    went = sum(event.fields.get("k") in _OUT for event in found)
    return Rate(round(came / over_s, 2), round(went / over_s, 2), over_s)


def _came_in(fields: Mapping[str, str]) -> bool:
    # One that a dead worker held is scheduled, too, and names it.
    kind = fields.get("k")
    return kind in _IN or (kind == "scheduled" and not fields.get("w"))
