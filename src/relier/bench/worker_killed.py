"""A whole worker is killed: how long until all its tasks run elsewhere."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from relier.bench.figures import Figure, Spread
from relier.bench.lab import Effort, Lab
from relier.bench.waiting import wait_for, within
from relier.bench.workers import Worker
from relier.bench.workload import RELIER, VANILLA

NAME = "worker-killed"
_BAR_S = 1.5
_TASKS = 4
_DEADLINE_S = 30.0
_SEED = 1


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Kill the busy one of two workers again and again; the idle one becomes the busy one."""
    back_s = _kills(lab, effort.kills)
    lost = _vanilla_back(lab, effort.patience_s)
    spread = Spread(back_s, "s")
    return [
        Figure(
            NAME,
            f"worker SIGKILLed -> its {_TASKS} tasks run elsewhere, {effort.kills} kills",
            vanilla=f"{lost} of {_TASKS} back in {effort.patience_s:g} s",
            relier=spread,
            bar=f"<= {_BAR_S} s each",
            met=spread.high <= _BAR_S,
        )
    ]


def _kills(lab: Lab, kills: int) -> list[float]:
    """Return, for each kill, the time in seconds until the last task ran again."""
    lab.fresh()
    moments = random.Random(_SEED)
    busy = _started(lab, RELIER)
    took_s = []
    for _ in range(kills):
        ids = _occupy(lab, RELIER, busy, gate := lab.gate())
        idle = _started(lab, RELIER)
        time.sleep(moments.random())  # a kill comes at any moment of the survivors' rounds
        took_s.append(_back_s(lab, ids, busy, idle))
        gate.touch()
        _await_results(lab, ids)
        busy.kill_tree()
        busy = idle
    return took_s


def _back_s(lab: Lab, ids: list[str], busy: Worker, idle: Worker) -> float:
    """Kill the busy worker's main process; return the seconds until all its tasks ran again."""
    killed_at = time.monotonic()
    busy.kill_main()
    idle.wait_for(lambda: len(_again(lab, ids)) == _TASKS, _DEADLINE_S, "the dead one's tasks")
    return max(_again(lab, ids).values()) - killed_at


def _await_results(lab: Lab, ids: list[str]) -> None:
    wait_for(lambda: lab.results(ids) == _TASKS, _DEADLINE_S, "the tasks' results")


def _vanilla_back(lab: Lab, patience_s: float) -> int:
    """Return how many tasks of a killed vanilla worker ran again within the patience."""
    lab.fresh()
    busy = _started(lab, VANILLA)
    ids = _occupy(lab, VANILLA, busy, lab.gate())
    _started(lab, VANILLA)
    busy.kill_main()
    within(lambda: len(_again(lab, ids)) == _TASKS, patience_s)
    return len(_again(lab, ids))


def _started(lab: Lab, flavour: str) -> Worker:
    worker = lab.worker(flavour, concurrency=_TASKS)
    worker.start()
    worker.wait_ready()
    return worker


def _occupy(lab: Lab, flavour: str, worker: Worker, gate: Path) -> list[str]:
    """Have the only worker run one task in each of its processes; return the tasks' ids."""
    task: Any = lab.task(flavour, "hold")
    ids = [task.delay(str(gate)).id for _ in range(_TASKS)]
    worker.wait_for(lambda: len(_starts(lab, ids)) == _TASKS, _DEADLINE_S, "its tasks running")
    return ids


def _starts(lab: Lab, ids: list[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for entry in lab.journal.entries("started"):
        if entry.task_id in ids:
            found.setdefault(entry.task_id, []).append(entry.at_s)
    return found


def _again(lab: Lab, ids: list[str]) -> dict[str, float]:
    """Return when each of the tasks began for the second time, of those that did."""
    return {each: times[1] for each, times in _starts(lab, ids).items() if len(times) > 1}
