"""Tasks run longer than they may: when is the hook called, and when are they stopped?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from relier.bench.figures import Figure, Spread
from relier.bench.lab import Effort, Lab
from relier.bench.workload import HARD_S, RELIER, SOFT_S, VANILLA

NAME = "timeouts"
_BAR_SOFT_S, _BAR_STOP_S = 0.1, HARD_S + 0.3
_KINDS = ("outstay", "aoutstay", "outstay_stubbornly")
_DEADLINE_S = 30.0


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Let a function, a coroutine and one that ignores its cancellation run for too long."""
    vanilla = _overstay(lab, VANILLA, _KINDS[:1], effort.repeats)
    relier = _overstay(lab, RELIER, _KINDS, effort.repeats)
    (soft_v, stop_v), (soft, stop) = (_merged(each) for each in (vanilla, relier))
    kinds = {kind: [hooks, stops] for kind, (hooks, stops) in relier.items()}
    return [
        Figure(
            NAME,
            f"soft timeout {SOFT_S:g} s: the hook is called after (def, async, cancellation-proof)",
            vanilla=soft_v,
            relier=soft,
            bar=f"{SOFT_S:g} s +- {_BAR_SOFT_S:g}",
            met=soft.low >= SOFT_S - _BAR_SOFT_S and soft.high <= SOFT_S + _BAR_SOFT_S,
            detail=kinds,
        ),
        Figure(
            NAME,
            f"hard timeout {HARD_S:g} s: the task is stopped after (the same)",
            vanilla=stop_v,
            relier=stop,
            bar=f"<= {_BAR_STOP_S:g} s",
            met=stop.high <= _BAR_STOP_S,
        ),
    ]


Times = dict[str, tuple[list[float], list[float]]]


def _overstay(lab: Lab, flavour: str, kinds: Sequence[str], rounds: int) -> Times:
    """Return for each kind the seconds from its body's begin to the hook, and to its last sign."""
    lab.fresh()
    times: Times = {kind: ([], []) for kind in kinds}
    with lab.worker(flavour, concurrency=len(_KINDS)) as worker:
        worker.wait_ready()
        for _ in range(rounds):
            ids = {lab.task(flavour, kind).delay().id: kind for kind in kinds}
            worker.wait_for(
                partial(_all_there, lab, list(ids)),
                _DEADLINE_S,
                "the tasks to be stopped",
            )
            for task_id, kind in ids.items():
                began_s = _last(lab, "started", task_id)
                times[kind][0].append(_last(lab, "hook", task_id) - began_s)
                times[kind][1].append(_last(lab, "alive", task_id) - began_s)
    return times


def _all_there(lab: Lab, ids: list[str]) -> bool:
    return lab.results(ids) == len(ids)


def _last(lab: Lab, event: str, task_id: str) -> float:
    return [each.at_s for each in lab.journal.entries(event) if each.task_id == task_id][-1]


def _merged(times: Times) -> tuple[Spread, Spread]:
    hooks = [each for kind in times.values() for each in kind[0]]
    stops = [each for kind in times.values() for each in kind[1]]
    return Spread(hooks, "s"), Spread(stops, "s")
