"""Poison: a task that kills what runs it ends as a dead letter, and nobody else is harmed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from relier.bench.figures import Figure, Spread
from relier.bench.lab import Effort, Lab
from relier.bench.waiting import within
from relier.bench.workers import Worker
from relier.bench.workload import QUEUE, RELIER, VANILLA_LATE

NAME = "poison"
_DEAD_WITHIN_S = 45.0
_INNOCENT = 8
_INNOCENT_S = 5.0
_GIVEN_UP_AFTER_S = 90.0


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Run both kinds of poison beside innocent tasks, on a worker that is started again."""
    vanilla_s = min(_DEAD_WITHIN_S, effort.patience_s)
    return [
        _figure(lab, "kill_process", "task that kills its own process", vanilla_s),
        _figure(lab, "kill_worker", "task that kills its whole worker", vanilla_s),
    ]


def _figure(lab: Lab, poison: str, name: str, vanilla_s: float) -> Figure:
    trial = _Trial(lab, RELIER, poison)
    trial.run()
    vanilla = _Trial(lab, VANILLA_LATE, poison)
    vanilla.watch(lambda: False, vanilla_s)
    expected = lab.broker.settings.max_resurrections + 1
    met = (
        trial.runs == expected
        and trial.dead_s is not None
        and trial.dead_s <= _DEAD_WITHIN_S
        and trial.unharmed == _INNOCENT
    )
    return Figure(
        NAME,
        f"{name}, beside {_INNOCENT} innocent ones of {_INNOCENT_S:g} s",
        vanilla=f"acks_late + reject, {vanilla_s:g} s: {vanilla.account}",
        relier=trial.account,
        bar=f"{expected} runs, dead <= {_DEAD_WITHIN_S:g} s, {_INNOCENT} unharmed",
        met=met,
        detail={
            "runs": trial.runs,
            "dead_s": trial.dead_s,
            "unharmed": trial.unharmed,
            "innocent_starts": Spread(trial.innocent_starts()).as_json(),
        },
    )


class _Trial:
    """One poison task among innocent ones, on one worker under a supervisor."""

    def __init__(self, lab: Lab, flavour: str, poison: str) -> None:
        lab.fresh()
        self._lab = lab
        self._journal = lab.journal
        self._worker: Worker = lab.worker(flavour, concurrency=_INNOCENT + 1)
        step: Any = lab.task(flavour, "step")
        self._innocent = [step.delay(_INNOCENT_S).id for _ in range(_INNOCENT)]
        self._poison: str = lab.task(flavour, poison).delay().id
        self._dead_at: float | None = None

    def run(self) -> None:
        """Run until the poison is dead and the innocent are done, or have had their time."""
        self.watch(lambda: self._is_dead() and self.unharmed == _INNOCENT, _GIVEN_UP_AFTER_S)

    def watch(self, done: Callable[[], object], deadline_s: float) -> None:
        """Wait, and start the worker again whenever it is gone, as a supervisor would."""

        def look() -> object:
            if not self._worker.running:
                self._worker.kill_tree()
                self._worker.start()
            return done()

        within(look, deadline_s)

    def _is_dead(self) -> bool:
        dead = self._lab.store.keys.dead(QUEUE)
        if self._dead_at is None and self._lab.store.redis.zscore(dead, self._poison) is not None:
            self._dead_at = time.monotonic()
        return self._dead_at is not None

    @property
    def runs(self) -> int:
        """How often the poison began."""
        return len(self._starts(self._poison))

    @property
    def dead_s(self) -> float | None:
        """Seconds from the poison's first start to its dead letter; None: it has none."""
        starts = self._starts(self._poison)
        return self._dead_at - starts[0] if self._dead_at and starts else None

    @property
    def unharmed(self) -> int:
        """How many innocent tasks committed, exactly once."""
        committed = [entry.task_id for entry in self._journal.entries("committed")]
        return sum(committed.count(each) == 1 for each in self._innocent)

    @property
    def account(self) -> str:
        """What happened, in a line."""
        dead = "never dead" if self.dead_s is None else f"dead after {self.dead_s:.1f} s"
        return f"{self.runs} runs, {dead}, {self.unharmed} of {_INNOCENT} unharmed"

    def innocent_starts(self) -> list[float]:
        """Return how often each innocent task began."""
        return [float(len(self._starts(each))) for each in self._innocent]

    def _starts(self, task_id: str) -> list[float]:
        return [e.at_s for e in self._journal.entries("started") if e.task_id == task_id]
