"""What a dispatch costs its caller: ``push`` and ``apush`` against ``.delay()``."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from relier.bench.figures import Figure, Spread, ratios
from relier.bench.lab import Effort, Lab
from relier.bench.workload import GUARDED, RELIER, VANILLA

NAME = "dispatch"
_BAR = 0.5
_WARM_UP = 50
_MS = 1_000
_FLAVOURS = {RELIER: "", GUARDED: ", signed and within a limit"}


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Take the p50 of sequential dispatches, in turns; results on, nobody consuming."""
    vanilla = lab.task(VANILLA, "add")
    delays: list[float] = []
    pushes: dict[str, list[float]] = {flavour: [] for flavour in _FLAVOURS}
    apushes: dict[str, list[float]] = {flavour: [] for flavour in _FLAVOURS}
    for _ in range(effort.repeats):
        lab.fresh()
        delays.append(_p50_ms(vanilla.delay, effort.calls))
        for flavour in _FLAVOURS:
            lab.fresh()
            pushes[flavour].append(_p50_ms(lab.task(flavour, "add").push, effort.calls))
            lab.fresh()
            apushes[flavour].append(asyncio.run(_async_p50_ms(lab, flavour, effort.calls)))
    return [
        figure
        for flavour, words in _FLAVOURS.items()
        for figure in (
            _figure(f"push{words}, p50 of one call", pushes[flavour], delays),
            _figure(f"apush{words}, sequential, p50 of one call", apushes[flavour], delays),
        )
    ]


def _p50_ms(send: Any, calls: int) -> float:
    for i in range(_WARM_UP):
        send(i, i)
    took = []
    for i in range(calls):
        begun = time.perf_counter()
        send(i, i)
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * _MS


async def _async_p50_ms(lab: Lab, flavour: str, calls: int) -> float:
    task = lab.task(flavour, "add")
    for i in range(_WARM_UP):
        await task.apush(i, i)
    took = []
    for i in range(calls):
        begun = time.perf_counter()
        await task.apush(i, i)
        took.append(time.perf_counter() - begun)
    await lab.broker_of(flavour).async_store().aclose()
    return statistics.median(took) * _MS


def _figure(name: str, ours: list[float], delays: list[float]) -> Figure:
    ratio = ratios(ours, delays)
    return Figure(
        NAME,
        f"{name} (vanilla: .delay())",
        vanilla=Spread(delays, "ms"),
        relier=Spread(ours, "ms"),
        ratio=ratio,
        bar=f"<= {_BAR}x",
        met=ratio.median <= _BAR,
    )
