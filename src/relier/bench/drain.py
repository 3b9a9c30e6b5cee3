"""How fast a worker gets through tasks that do nothing: what reliability costs per task."""

from __future__ import annotations

import time

from relier.bench.figures import Figure, Spread, ratios
from relier.bench.lab import Effort, Lab
from relier.bench.workload import RELIER, VANILLA

NAME = "drain"
_BAR = 1.6
_POOL = 2
_DEADLINE_S = 120.0
_SLACK = 20
"""Keys that a worker itself adds and removes; each task adds one, its result."""


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Drain a full queue with 2 pool processes, results on, in turns."""
    vanilla, ours = [], []
    for _ in range(effort.repeats):
        vanilla.append(_drained_per_s(lab, VANILLA, effort.drain))
        ours.append(_drained_per_s(lab, RELIER, effort.drain))
    ratio = ratios(ours, vanilla)
    return [
        Figure(
            NAME,
            f"draining {effort.drain:,} empty tasks, prefork {_POOL}, results on",
            vanilla=Spread(vanilla, "/s"),
            relier=Spread(ours, "/s"),
            ratio=ratio,
            bar=f">= {_BAR}x",
            met=ratio.median >= _BAR,
        )
    ]


def _drained_per_s(lab: Lab, flavour: str, count: int) -> float:
    """Return results per second, from the first to the last: the worker's start is left out."""
    lab.fresh()
    ids = fill(lab, flavour, count)
    redis = lab.store.redis
    before = redis.dbsize()
    with lab.worker(flavour, concurrency=_POOL, loglevel="WARNING") as worker:
        worker.wait_for(lambda: redis.dbsize() > before + _SLACK, _DEADLINE_S, "a first result")
        begun, first = time.perf_counter(), lab.results(ids)
        nearly = before + count - _SLACK
        worker.wait_for(lambda: redis.dbsize() >= nearly, _DEADLINE_S, "most results")
        worker.wait_for(lambda: lab.results(ids) == count, _DEADLINE_S, "all results")
        took_s = time.perf_counter() - begun
    return (count - first) / took_s


def fill(lab: Lab, flavour: str, count: int) -> list[str]:
    """Put empty tasks into the queue, as the flavour dispatches them; return their ids."""
    task = lab.task(flavour, "empty")
    if flavour == RELIER:
        return [receipt.id for receipt in task.push_many([()] * count)]
    # Ids of our own and no receipts kept: the backend would subscribe to each result.
    with task.app.producer_or_acquire() as producer:
        return [task.apply_async(producer=producer, ignore_result=False).id for _ in range(count)]
