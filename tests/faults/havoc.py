"""A fleet whose processes are killed at random, and replaced as a supervisor would."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from faults.scene import Scene, kill
from support.worker import Worker

DONE_S = 100.0
"""How long a fleet under fire may take on a loaded machine."""


class Fleet:
    """Workers of a scene, of which so many are kept alive.

    Args:
        scene: where they work.
        size: how many there are.
        seed: which of them die, and when.
        concurrency: pool processes of each.
    """

    def __init__(self, scene: Scene, *, size: int, seed: int, concurrency: int = 2) -> None:
        self._scene = scene
        self._size = size
        self._concurrency = concurrency
        self._random = random.Random(seed)
        self._workers: list[Worker] = []
        self._started = 0
        self.kills = {"process": 0, "worker": 0}
        print(f"seed {seed}")
        self.staff()
        for worker in self._workers:
            worker.wait_ready()

    def staff(self) -> None:
        """Start a worker for each one that is gone."""
        self._workers = [worker for worker in self._workers if worker.running]
        while len(self._workers) < self._size:
            name = f"shift{self._started}"
            self._started += 1
            how = {"concurrency": self._concurrency, "wait_ready": False}
            self._workers.append(self._scene.worker(name, **how))

    def kill_process(self) -> None:
        """Kill one process of a pool."""
        processes = [pid for worker in self._ready() for pid in worker.children()]
        if processes:
            self._kill("process", self._random.choice(processes))

    def kill_worker(self) -> None:
        """Kill a main process, with its pool or without; never the last that is ready."""
        ready = self._ready()
        if len(ready) > 1:
            worker = self._random.choice(ready)
            self.kills["worker"] += 1
            self._random.choice([worker.sigkill, worker.sigkill_tree])()
        self.staff()

    def ravage(
        self, strikes: Sequence[tuple[int, float, Callable[[], None]]], done: Callable[[], bool]
    ) -> None:
        """Strike while it is not done.

        Args:
            strikes: how often at most, the mean time between two blows in s, and the blow. Without
                an end to them a slow machine would do nothing but start workers.
            done: asked all the time.
        """
        due = [time.monotonic() + self._random.uniform(0, mean_s) for _, mean_s, _ in strikes]

        dealt = [0] * len(strikes)

        def strike() -> bool:
            if done():
                return True
            for number, (most, mean_s, blow) in enumerate(strikes):
                if time.monotonic() >= due[number] and dealt[number] < most:
                    blow()
                    dealt[number] += 1
                    due[number] = time.monotonic() + self._pause_s(mean_s)
            return False

        self._scene.wait(strike, "the work to be done", DONE_S)

    def _pause_s(self, mean_s: float) -> float:
        return self._random.uniform(0.5 * mean_s, 1.5 * mean_s)

    def _ready(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.running and worker.ready]

    def _kill(self, kind: str, pid: int) -> None:
        try:
            kill(pid)
        except ProcessLookupError:
            return
        self.kills[kind] += 1
