"""What a scenario reports: measured values, a bar, and whether the bar was met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing.

    Args:
        values: at least one.
        unit: shown behind the numbers.
    """

    values: Sequence[float]
    unit: str = ""

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if len(self.values) == 1:
            return f"{number(self.median)}{unit}"
        return f"{number(self.median)}{unit} ({number(self.low)}..{number(self.high)})"

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "median": self.median,
            "min": self.low,
            "max": self.high,
            "unit": self.unit,
            "values": list(self.values),
        }


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Args:
        scenario: the name that ``--only`` takes.
        name: what was measured.
        vanilla: what vanilla Celery did, or None when it has no such thing.
        relier: what relier did.
        bar: what is wanted, as text, or "" for a line that only informs.
        met: whether it was reached; None without a bar.
        ratio: relier against vanilla, of interleaved pairs.
        detail: plain data for ``--json``.
    """

    scenario: str
    name: str
    relier: Spread | str
    vanilla: Spread | str | None = None
    bar: str = ""
    met: bool | None = None
    ratio: Spread | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Return "met", "NOT MET", or nothing where there is no bar."""
        return "" if self.met is None else "met" if self.met else "NOT MET"

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "scenario": self.scenario,
            "name": self.name,
            "vanilla": _plain(self.vanilla),
            "relier": _plain(self.relier),
            "ratio": _plain(self.ratio),
            "bar": self.bar,
            "met": self.met,
            "detail": self.detail,
        }


def ratios(relier: Sequence[float], vanilla: Sequence[float]) -> Spread:
    """Return relier against vanilla, pair by pair: what the machine did meanwhile cancels out."""
    return Spread([ours / theirs for ours, theirs in zip(relier, vanilla, strict=True)], "x")


def number(value: float) -> str:
    """Return a number with three significant figures, and whole from 100 on."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _plain(value: Spread | str | None) -> Any:
    return value.as_json() if isinstance(value, Spread) else value
