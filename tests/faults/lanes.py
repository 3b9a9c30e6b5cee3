"""Several stages on one server, each in a database of its own, for series of whole workers' deaths.

A worker that is killed is missed for a second or more before its tasks run again. The stages wait
side by side, so that a series can afford a life for each crash point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeVar

import pytest
import redis

from faults.lives import VICTIM
from faults.stage import Stage, Victim
from relier.store.embedded import EmbeddedServer
from support.proxy import Proxy

DATABASES = (5, 6, 7, 8)

Point = TypeVar("Point")


class _Database(NamedTuple):
    """A server as a stage sees it."""

    url: str


class Lanes:
    """Stages that share the points of a series.

    Args:
        stages: each with its own database, proxy and workers.
    """

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages

    def each(
        self,
        pool: str,
        points: Iterable[Point],
        shoot: Callable[[Victims, Point], bool],
        env: dict[str, str] | None = None,
    ) -> int:
        """Try every point in whichever lane is free; return how many cuts were met."""
        todo: SimpleQueue[Point] = SimpleQueue()
        for point in points:
            todo.put(point)
        with ThreadPoolExecutor(len(self.stages)) as side_by_side:
            lanes = [
                side_by_side.submit(_drive, Victims(s, pool, env), todo, shoot) for s in self.stages
            ]
            return sum(lane.result() for lane in lanes)


class Victims:
    """The workers of one lane that die one after another.

    Args:
        stage: the lane's.
        pool: their pool.
        env: more settings of theirs.
    """

    def __init__(self, stage: Stage, pool: str, env: dict[str, str] | None = None) -> None:
        self.stage = stage
        self.pool = pool
        self._env = env
        self.now = self.fork()

    def fork(self) -> Victim:
        """Fork the next one, which takes over what the last one left."""
        stage = self.stage
        self.now = stage.fork(stage.proxy.url, VICTIM, self.pool, "victim", self._env)
        return self.now

    def alive(self) -> Victim:
        """Return one that lives and is ready."""
        victim = self.now if self.now.alive() else self.fork()
        self.stage.wait_ready(victim)
        return victim

    def kill(self) -> None:
        """Kill the one that lives."""
        try:
            self.now.kill()
        except ProcessLookupError:
            pass  # it was killed before


def _drive(
    victims: Victims, todo: SimpleQueue[Point], shoot: Callable[[Victims, Point], bool]
) -> int:
    met = 0
    try:
        while True:
            try:
                point = todo.get_nowait()
            except Empty:
                return met
            met += shoot(victims, point)
    finally:
        victims.kill()


@contextmanager
def open_lanes(
    server: EmbeddedServer, folder: Path, request: pytest.FixtureRequest
) -> Iterator[Lanes]:
    """Set the stages, on databases that are emptied first."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        stages = []
        for number in DATABASES:
            url = f"{server.url.rpartition('/')[0]}/{number}"
            with redis.Redis.from_url(url) as admin:
                admin.flushdb()
            proxy = stack.enter_context(Proxy(url))
            own = folder / str(number)
            own.mkdir()
            stages.append(Stage(_Database(url), proxy, own, capture))
            stack.callback(stages[-1].close)
        yield Lanes(stages)
