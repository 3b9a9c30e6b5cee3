"""Service level objectives as settings write them: `99.9%, 95%@30s`.

The words are those of Google's SRE workbook (chapter 2): an objective is a share of events that are
to be good; the rest is its error budget.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LATENCIES_MS = (
    *(10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000),
    *(60_000, 120_000, 300_000, 600_000, 1_200_000, 1_800_000),
    *(3_600_000, 7_200_000, 10_800_000, 21_600_000),
)
"""The latencies that are told apart (store/lua/lib/tally.lua counts by them)."""

ALL_TASKS = "*"
MOST_OBJECTIVES = 100
_BEST_PERCENT = 99.9999
_UNITS_MS = {"ms": 1, "s": 1_000, "min": 60_000, "m": 60_000, "h": 3_600_000}
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_LATENCY = re.compile(r"(\d+)\s*(ms|s|min|m|h)", re.ASCII)


class Objective(NamedTuple):
    """What share of the tasks is to succeed, or of those that do, to be done in time.

    Args:
        tasks: a task's name, in which `*` stands for anything; all that it fits count together.
        percent: how many of a hundred, above 0 and below 100.
        latency_ms: in what time; None for an objective of success.
    """

    tasks: str
    percent: float
    latency_ms: int | None = None

    @property
    def budget(self) -> float:
        """Return the share that may be bad."""
        return 1 - self.percent / 100

    @property
    def words(self) -> str:
        """Return the objective in words."""
        share = f"{self.percent:.10g}%"
        if self.latency_ms is None:
            return f"{share} succeed"
        return f"{share} in {latency_words(self.latency_ms)}"


def overall(text: str) -> tuple[Objective, ...]:
    """Read the objectives over all tasks.

    Raises:
        ValueError: they are none; the text says what is wrong.
    """
    return _objectives(ALL_TASKS, text)


def per_task(text: str) -> tuple[Objective, ...]:
    """Read objectives of tasks by name: `billing.*=99.95%,95%@30s; report=99%`.

    Raises:
        ValueError: they are none, or too many.
    """
    found: list[Objective] = []
    for entry in filter(None, (each.strip() for each in text.split(";"))):
        tasks, equals, objectives = entry.rpartition("=")
        if not equals or not tasks.strip():
            raise ValueError(f"{entry!r} lacks a task's name and '='")
        if any(each.tasks == tasks.strip() for each in found):
            raise ValueError(f"{tasks.strip()} stands there twice")
        found += _objectives(tasks.strip(), objectives)
    if len(found) > MOST_OBJECTIVES:
        raise ValueError(f"there are {len(found)} objectives, and at most {MOST_OBJECTIVES}")
    return tuple(found)


def latency_words(latency_ms: int) -> str:
    """Return one of the latencies: 50 ms, 30 s, 5 min, 2 h."""
    for size, unit in ((3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        if latency_ms >= size:
            return f"{latency_ms // size} {unit}"
    return f"{latency_ms} ms"


def _objectives(tasks: str, text: str) -> tuple[Objective, ...]:
    found = [_objective(tasks, each.strip()) for each in text.split(",")]
    latencies = [each.latency_ms for each in found]
    if len(set(latencies)) < len(latencies):
        raise ValueError(f"{text.strip()!r} asks for the same twice")
    return tuple(found)


def _objective(tasks: str, text: str) -> Objective:
    share, at, latency = text.partition("@")
    percent = _PERCENT.fullmatch(share.strip())
    if not percent:
        raise ValueError(f"{text!r} is no share such as 99.9% or 95%@30s")
    value = float(percent[1])
    if not 0 < value <= _BEST_PERCENT:
        raise ValueError(
            f"{percent[0]} is not above 0% and at most {_BEST_PERCENT}%: of 100% no failure at all "
            "would be left, and no rate at which it is used up"
        )
    return Objective(tasks, value, _latency_ms(latency.strip()) if at else None)


def _latency_ms(text: str) -> int:
    found = _LATENCY.fullmatch(text)
    latency_ms = int(found[1]) * _UNITS_MS[found[2]] if found and len(found[1]) < 10 else 0
    if latency_ms not in LATENCIES_MS:
        known = ", ".join(latency_words(each).replace(" ", "") for each in LATENCIES_MS)
        raise ValueError(f"the time {text!r} is none of those that are told apart: {known}")
    return latency_ms
