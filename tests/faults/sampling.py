"""Which points of a long series a run of the tests tries."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

from support.servers import leg

FULL = os.environ.get("RELIER_TEST_FULL", "") not in ("", "0")
"""``RELIER_TEST_FULL=1`` tries every point of every series."""

Point = TypeVar("Point")


def sample(points: Sequence[Point], series: str, budget: int | None = None) -> list[Point]:
    """Return the points to try; the same ones each time.

    Each server's leg takes its own from one shuffled row, the first from its head and the second
    from its tail: what they take between them is twice the budget, or all.

    Args:
        series: what the shuffle is seeded with.
        budget: how many at the most; None takes half of them.
    """
    size = (len(points) + 1) // 2 if budget is None else budget
    if FULL or len(points) <= size:
        return list(points)
    row = random.Random(series).sample(range(len(points)), len(points))
    chosen = row[:size] if leg() == "valkey" else row[-size:]
    return [points[index] for index in sorted(chosen)]
