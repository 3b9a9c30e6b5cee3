"""Many tasks, several worker SIGKILLs: was each delivered, and none committed twice?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from relier.bench.figures import Figure
from relier.bench.journal import Journal
from relier.bench.lab import Effort, Lab
from relier.bench.waiting import wait_for, within
from relier.bench.workers import Worker
from relier.bench.workload import QUEUE, RELIER, VANILLA

NAME = "delivery"
_TASKS = 500
_KILLS = 5
_WORKERS = 3
_POOL = 4
_TASK_S = 0.1
_DEADLINE_S = 120.0


class _Outcome(NamedTuple):
    delivered: int
    committed_twice: int
    fences_repeated: int


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Kill one of three workers five times while they work, in turns with vanilla."""
    vanilla, ours = [], []
    for _ in range(effort.delivery_runs):
        vanilla.append(_attempt(lab, VANILLA, effort.patience_s))
        ours.append(_attempt(lab, RELIER, _DEADLINE_S))
    clean = all(each == _Outcome(_TASKS, 0, 0) for each in ours)
    return [
        Figure(
            NAME,
            f"{_TASKS} tasks, {_KILLS} worker SIGKILLs, {effort.delivery_runs} runs",
            vanilla=_said(vanilla),
            relier=_said(ours),
            bar=f"{_TASKS} delivered, 0 twice, every run",
            met=clean,
            detail={
                "vanilla": [each._asdict() for each in vanilla],
                "relier": [each._asdict() for each in ours],
            },
        )
    ]


def _said(outcomes: list[_Outcome]) -> str:
    delivered = ", ".join(str(each.delivered) for each in outcomes)
    twice = ", ".join(str(each.committed_twice) for each in outcomes)
    return f"delivered {delivered}; committed twice {twice}"


def _attempt(lab: Lab, flavour: str, patience_s: float) -> _Outcome:
    lab.fresh()
    workers = [lab.worker(flavour, concurrency=_POOL) for _ in range(_WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.wait_ready()
    task = lab.task(flavour, "step")
    ids = [task.delay(_TASK_S).id for _ in range(_TASKS)]
    for kill in range(_KILLS):
        share = _TASKS * (kill + 1) // (_KILLS + 2)
        wait_for(_progress(lab, ids, share), _DEADLINE_S, f"{share} of {_TASKS} results")
        _kill(workers[kill % _WORKERS], whole=kill % 2 == 0)
    # Vanilla Celery may never finish: it is given up once it has stood still for a while.
    seen, still_since = -1, time.monotonic()
    while seen < _TASKS and time.monotonic() - still_since < patience_s:
        if within(_progress(lab, ids, seen + 1), 1.0):
            seen, still_since = lab.results(ids), time.monotonic()
    return _account(lab, flavour, ids)


def _progress(lab: Lab, ids: list[str], share: int) -> Callable[[], bool]:
    return lambda: lab.results(ids) >= share


def _kill(worker: Worker, *, whole: bool) -> None:
    """Kill a worker and start it again.

    Args:
        worker: it.
        whole: with its pool; without, its orphaned processes go on for a while and try to commit.
    """
    if whole:
        worker.kill_tree()
    else:
        worker.kill_main()
    worker.start()


def _account(lab: Lab, flavour: str, ids: list[str]) -> _Outcome:
    """Count by the tasks' own journal and by the server's: whichever saw more is right."""
    noted = Counter(entry.task_id for entry in lab.journal.entries("committed"))
    recorded = _ended(lab) if flavour == RELIER else Counter[str]()
    twice = sum(noted[each] > 1 or recorded[each] > 1 for each in ids)
    return _Outcome(lab.results(ids), twice, _repeated_fences(lab.journal))


def _ended(lab: Lab) -> Counter[str]:
    """Return how often the server recorded each task's end."""
    events: Any = lab.store.redis.xrange(lab.store.keys.events(QUEUE))
    return Counter(fields[b"i"].decode() for _, fields in events if fields[b"k"] == b"ended")


def _repeated_fences(journal: Journal) -> int:
    """Return how many fencing tokens were given to two starts; vanilla Celery has none."""
    fences = Counter(entry.fence for entry in journal.entries("started") if entry.fence)
    return sum(count > 1 for count in fences.values())
