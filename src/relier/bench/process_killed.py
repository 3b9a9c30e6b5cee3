"""A pool process is killed: how long until its task runs again."""

from __future__ import annotations

import os
import signal
import time

from relier.bench.figures import Figure, Spread, number
from relier.bench.journal import Entry
from relier.bench.lab import Effort, Lab
from relier.bench.waiting import wait_for, within
from relier.bench.workers import Worker
from relier.bench.workload import RELIER, VANILLA, VANILLA_LATE

NAME = "process-killed"
_BAR_S = 0.3
_POOL = 2
_DEADLINE_S = 30.0


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Kill the process under a task, again and again, each time under a new task."""
    took_s = []
    with _worker(lab, RELIER) as worker:
        for _ in range(effort.kills):
            again_s = _kill(lab, RELIER, worker, _DEADLINE_S)
            took_s.append(again_s if again_s is not None else _DEADLINE_S)
    spread = Spread(took_s, "s")
    return [
        Figure(
            NAME,
            f"pool process SIGKILLed -> its task runs again, {effort.kills} kills",
            vanilla=_vanilla(lab, effort.patience_s),
            relier=spread,
            bar=f"<= {_BAR_S} s each",
            met=spread.high <= _BAR_S,
        )
    ]


def _vanilla(lab: Lab, patience_s: float) -> str:
    said = []
    for flavour, label in ((VANILLA, ""), (VANILLA_LATE, "acks_late + reject: ")):
        with _worker(lab, flavour) as worker:
            again_s = _kill(lab, flavour, worker, patience_s)
        lost = f"not in {patience_s:g} s"
        said.append(label + (lost if again_s is None else f"{number(again_s)} s"))
    return "; ".join(said)


def _worker(lab: Lab, flavour: str) -> Worker:
    lab.fresh()
    return lab.worker(flavour, concurrency=_POOL)


def _kill(lab: Lab, flavour: str, worker: Worker, patience_s: float) -> float | None:
    """Kill the process of one new task; return the seconds until it ran again, or None."""
    gate = lab.gate()
    task_id = lab.task(flavour, "hold").delay(str(gate)).id

    def starts() -> list[Entry]:
        return [e for e in lab.journal.entries("started") if e.task_id == task_id]

    first = worker.wait_for(starts, _DEADLINE_S, "the task running")[0]
    killed_at = time.monotonic()
    os.kill(first.pid, signal.SIGKILL)
    within(lambda: len(starts()) > 1, patience_s)
    gate.touch()
    if len(starts()) < 2:
        return None
    wait_for(lambda: lab.results([task_id]) == 1, _DEADLINE_S, "the task's result")
    return starts()[1].at_s - killed_at
