"""What is counted of the tasks that end: how, and how long after they were due.

Scripts count (store/lua/lib/tally.lua); this says what their fields mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

SUCCEEDED, FAILED, EXPIRED, DEAD, EXCUSED = "s", "f", "e", "d", "r"
"""How a task ended: excused is one that was revoked, or that asked to be ignored."""

OTHERS = "*"
"""The name under which tasks are counted whose own is not known, or one too many."""

MINUTE_MS, HALF_HOUR_MS = 60_000, 30 * 60_000
MINUTES_KEPT = 119
"""Of the past; a minute's hash lasts for two hours after it was added to its half hour."""
HALF_HOURS_KEPT = 144
"""Of the past: three days. A half hour's hash lasts for 73 hours."""

_HOW = frozenset({SUCCEEDED, FAILED, EXPIRED, DEAD, EXCUSED})


class Cell(NamedTuple):
    """One field of a count.

    Args:
        how: how the tasks ended.
        most_ms: what they took at most: one of the latencies, or infinity; None when it was not
            measured, as of all but successes.
        name: the tasks' name.
    """

    how: str
    most_ms: float | None
    name: str


def cell(field: str) -> Cell | None:
    """Read a field; None for one that another version wrote."""
    how, _, rest = field.partition("|")
    took, bar, name = rest.partition("|")
    if how not in _HOW or not bar:
        return None
    if not took:
        return Cell(how, None, name)
    if took == "inf":
        return Cell(how, math.inf, name)
    return Cell(how, int(took), name) if took.isdecimal() else None


def percentile_ms(counts: Mapping[float, int], share: float) -> float | None:
    """Return the latency that this share of the tasks did not exceed, rounded up to one counted by.

    Args:
        counts: how many took at most so many ms and more than the latency before.
        share: above 0, at most 1.

    Returns:
        Infinity beyond the last latency that is told apart; None when there were no tasks.
    """
    needed = share * sum(counts.values())
    reached = 0
    for most_ms in sorted(counts):
        reached += counts[most_ms]
        if reached and reached >= needed:
            return most_ms
    return None
