"""Scheduled tasks: how late do they begin, and what do they cost a worker while they wait?"""

from __future__ import annotations

import random
import time

from relier.bench.figures import Figure, Spread, number
from relier.bench.lab import Effort, Lab
from relier.bench.waiting import wait_for
from relier.bench.workers import Worker
from relier.bench.workload import QUEUE, RELIER, VANILLA

NAME = "lateness"
_BAR_MS = 100
_BAR_KB = 1_000
_WORKERS = 2
_POOL = 2
_FIRST_S = 1.0
_FAR_S = 3_600
_VANILLA_SHARE = 10
_DEADLINE_S = 120.0
_SEED = 1


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Schedule tasks at random moments in an idle fleet; then many that stay where they are."""
    return [_lateness(lab, effort), _weight(lab, effort)]


def _lateness(lab: Lab, effort: Effort) -> Figure:
    vanilla = Spread(_p99s_ms(lab, VANILLA, effort), "ms")
    ours = Spread(_p99s_ms(lab, RELIER, effort), "ms")
    return Figure(
        NAME,
        f"p99 lateness of {effort.timed} scheduled tasks, {_WORKERS} idle workers",
        vanilla=vanilla,
        relier=ours,
        bar=f"<= {_BAR_MS} ms",
        met=ours.median <= _BAR_MS,
    )


def _p99s_ms(lab: Lab, flavour: str, effort: Effort) -> list[float]:
    """Return the 99th percentile of each repeat."""
    lab.fresh()
    _fleet(lab, flavour, _WORKERS)
    moments = random.Random(_SEED)
    found = []
    for _ in range(effort.repeats):
        late_ms = sorted(_late_ms(lab, flavour, effort, moments))
        found.append(late_ms[len(late_ms) * 99 // 100])
    return found


def _late_ms(lab: Lab, flavour: str, effort: Effort, moments: random.Random) -> list[float]:
    """Schedule tasks; return how long after its moment each one's body began."""
    task, due_s = lab.task(flavour, "step"), {}
    for _ in range(effort.timed):
        delay_s = _FIRST_S + moments.random() * effort.spread_s
        now_s = time.monotonic()
        due_s[task.apply_async((0,), countdown=delay_s).id] = now_s + delay_s
    ids = list(due_s)
    wait_for(lambda: lab.results(ids) == effort.timed, _DEADLINE_S, "the scheduled tasks' results")
    began = lab.journal.entries("started")
    return [(each.at_s - due_s[each.task_id]) * 1_000 for each in began if each.task_id in due_s]


def _weight(lab: Lab, effort: Effort) -> Figure:
    count, idle_s = effort.scheduled, effort.idle_s
    few = count // _VANILLA_SHARE
    vanilla_kb = _gain_kb(lab, VANILLA, few, idle_s)
    relier_kb = _gain_kb(lab, RELIER, count, idle_s)
    return Figure(
        NAME,
        f"what {count:,} scheduled tasks add to a worker, PSS of the tree (vanilla: {few:,})",
        vanilla=f"{number(vanilla_kb)} kB",
        relier=f"{number(relier_kb)} kB",
        bar=f"<= {_BAR_KB:,} kB",
        met=relier_kb <= _BAR_KB,
        detail={"vanilla_kb": vanilla_kb, "relier_kb": relier_kb},
    )


def _gain_kb(lab: Lab, flavour: str, count: int, idle_s: float) -> float:
    """Return by how much an idle worker grows when so many tasks are scheduled."""
    lab.fresh()
    [worker] = _fleet(lab, flavour, 1)
    _schedule(lab, flavour, 1)  # what the first one has it load is not counted
    before_kb = _idle_kb(lab, worker, idle_s)
    _schedule(lab, flavour, count)
    return _idle_kb(lab, worker, idle_s) - before_kb


def _schedule(lab: Lab, flavour: str, count: int) -> None:
    app, task = lab.app(flavour), lab.task(flavour, "step")
    with app.producer_or_acquire() as producer:
        for _ in range(count):
            task.apply_async((0,), countdown=_FAR_S, producer=producer)


def _idle_kb(lab: Lab, worker: Worker, idle_s: float) -> float:
    """Return a worker's weight once it has taken all that it wants."""
    redis = lab.store.redis
    worker.wait_for(lambda: redis.llen(QUEUE) == 0, _DEADLINE_S, "its queue to be empty")
    time.sleep(idle_s)
    return worker.pss_kb()


def _fleet(lab: Lab, flavour: str, size: int) -> list[Worker]:
    workers = [lab.worker(flavour, concurrency=_POOL) for _ in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.wait_ready()
    return workers
