"""What an idle worker weighs."""

from __future__ import annotations

import time

from relier.bench.figures import Figure, Spread, ratios
from relier.bench.lab import Effort, Lab
from relier.bench.workload import RELIER, VANILLA

NAME = "footprint"
_BAR = 1.10
_POOL = 2
_IDLE_S = 2.0
_MB_KB = 1_000


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Sum the proportional set sizes of an idle worker's processes, in turns."""
    vanilla, ours = [], []
    for _ in range(effort.repeats):
        vanilla.append(_tree_mb(lab, VANILLA))
        ours.append(_tree_mb(lab, RELIER))
    ratio = ratios(ours, vanilla)
    return [
        Figure(
            NAME,
            f"idle worker with {_POOL} processes, PSS of the tree",
            vanilla=Spread(vanilla, "MB"),
            relier=Spread(ours, "MB"),
            ratio=ratio,
            bar=f"<= {_BAR:.2f}x",
            met=ratio.median <= _BAR,
        )
    ]


def _tree_mb(lab: Lab, flavour: str) -> float:
    lab.fresh()
    with lab.worker(flavour, concurrency=_POOL) as worker:
        worker.wait_ready()
        time.sleep(_IDLE_S)  # idle is what is measured: let its first timers pass
        return worker.pss_kb() / _MB_KB
