"""How fast an error budget is used up, and when that is worth a page or a ticket.

From the Google SRE workbook, chapter 5, "Alerting on SLOs", its sixth approach: several windows,
several burn rates. A burn rate of 1 uses up exactly the budget of 30 days in 30 days. A condition
holds while a long window (it is no blip) and a short one (it goes on still) are both above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 24 * 3600
PERIOD_S = 30 * _DAY_S
"""Over what time a budget is meant to last."""

FEWEST_BAD = 3
"""A condition needs so many bad events in its long window: where few tasks run, one that fails is
a large share of them and no trend."""


class Events(NamedTuple):
    """How many were good, and how many bad."""

    good: int = 0
    bad: int = 0

    @property
    def total(self) -> int:
        """Return how many there were."""
        return self.good + self.bad


class Condition(NamedTuple):
    """A condition on two windows.

    Args:
        severity: "page" somebody now, or write a "ticket".
        rate: the burn rate above which it holds.
    """

    severity: str
    long_s: int
    short_s: int
    rate: float


CONDITIONS = (
    Condition("page", _HOUR_S, 5 * _MINUTE_S, 14.4),
    Condition("page", 6 * _HOUR_S, 30 * _MINUTE_S, 6.0),
    Condition("ticket", 3 * _DAY_S, 6 * _HOUR_S, 1.0),
)
"""The workbook's table 5-8: 2 % of the budget in an hour, 5 % in six, 10 % in three days."""

WINDOWS_S = tuple(sorted({each for c in CONDITIONS for each in (c.short_s, c.long_s)}))


class State(StrEnum):
    """What a condition says."""

    OK = "ok"
    BURNING = "burning"
    FEW = "too few"
    NO_DATA = "no data"


class Judged(NamedTuple):
    """One condition, judged; the rates are None where nothing happened."""

    condition: Condition
    state: State
    long_rate: float | None
    short_rate: float | None


def burn_rate(events: Events, budget: float) -> float | None:
    """Return how many times too fast the budget is used up; None when nothing happened.

    Args:
        budget: the share of events that may be bad, above 0 and at most 1.

    Raises:
        ValueError: there is no budget, so that any failure would use it up infinitely fast.
    """
    if not 0 < budget <= 1:
        raise ValueError(f"a budget of {budget:g} is not above 0 and at most 1")
    return events.bad / events.total / budget if events.total else None


def judge(windows: Mapping[int, Events], budget: float) -> tuple[Judged, ...]:
    """Judge every condition.

    Args:
        windows: what happened in each of ``WINDOWS_S``.
        budget: as for ``burn_rate``.
    """
    return tuple(_judge(condition, windows, budget) for condition in CONDITIONS)


def reachable(condition: Condition, budget: float) -> bool:
    """Return whether the condition can hold: nothing burns faster than nothing but failures."""
    return condition.rate < 1 / budget


def used_up_in_s(rate: float) -> float:
    """Return in what time this burn rate uses up the budget of ``PERIOD_S``."""
    return PERIOD_S / rate if rate > 0 else math.inf


def _judge(condition: Condition, windows: Mapping[int, Events], budget: float) -> Judged:
    within = windows[condition.long_s]
    long_rate, short_rate = (
        burn_rate(windows[each], budget) for each in (condition.long_s, condition.short_s)
    )
    if long_rate is None:
        return Judged(condition, State.NO_DATA, None, short_rate)
    # Above it, beyond what the last bits of a division say: a budget may be used up exactly.
    holds = all((rate or 0) > condition.rate * (1 + 1e-9) for rate in (long_rate, short_rate))
    state = State.OK
    if holds:
        state = State.BURNING if within.bad >= FEWEST_BAD else State.FEW
    return Judged(condition, state, long_rate, short_rate)
