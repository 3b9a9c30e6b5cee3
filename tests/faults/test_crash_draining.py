"""Crash at every step of a drain: at what the main process sends, and at what the task's own sends.

The worker is asked to stop while a task runs and another waits in its hands. Either all of it dies
at a command, or only the process that runs the task, and the drain goes on without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from faults.lanes import Lanes, Victims, open_lanes
from faults.lives import CALM, VICTIM, Life
from faults.sampling import sample
from faults.stage import LIFE_DEADLINE_S, Stage, Victim, When, assert_laws, every_point
from relier.store.embedded import EmbeddedServer
from support.proxy import Command
from support.wait import wait_for

GRACE = {"RELIER_GRACEFUL_SHUTDOWN_TIMEOUT": "1.5"}
BUDGET = 10
"""Each point is a worker's start, a drain, and often a recovery: about four seconds in one lane."""
OF_A_DRAIN = {
    *("reconcile", "release", "reap_claim", "drained", "goodbye"),
    *("reserve_file", "checkpoint", "commit", "finish", "enqueue", "ack"),
}


def in_drain(command: Command) -> bool:
    """Whether main gives something back with it, or the task's process saves or ends something."""
    return command.script in OF_A_DRAIN


def _lingering(app: Any) -> str:
    return _publish(app, "linger")


def _in_time(app: Any) -> str:
    return _publish(app, "in_time")


def _publish(app: Any, task: str) -> str:
    task_id, effect = str(uuid.uuid4()), app.tasks["effect"]
    link = effect.s("link").set(queue=CALM)
    app.tasks[task].apply_async(queue=VICTIM, task_id=task_id, link=[link])
    effect.apply_async((1, "waits"), queue=VICTIM)
    return task_id


LIVES = [
    Life("handed over", _lingering, [("effect", "link", 1), ("effect", "waits", 1)]),
    Life("ends in time", _in_time, [("effect", "link", 1), ("effect", "waits", 1)]),
]


class Point(NamedTuple):
    """The n-th command of a drain, before or after it took effect, and who dies at it."""

    life: Life
    n: int
    when: When
    dies: str


@pytest.fixture(scope="module")
def lanes(
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Lanes]:
    with open_lanes(session_server, tmp_path_factory.mktemp("drains"), request) as running:
        yield running


@pytest.mark.timeout(240)
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_drain_is_cut_at_every_command(lanes: Lanes, life: Life) -> None:
    commands = _count(lanes.stages[0], life)
    every = [
        Point(life, n, when, dies)
        for dies in ("worker", "pool process")
        for n, when in every_point(commands)
    ]
    tried = lanes.each("prefork", sample(every, f"drain, {life.name}", BUDGET), die_at, GRACE)
    lanes.stages[0].report(f"a drain, {life.name}", tried, len(every))


def die_at(victims: Victims, point: Point) -> bool:
    """Ask a worker to stop, kill it or its pool process, and let the next one do the rest."""
    stage, victim = victims.stage, victims.alive()
    kills: dict[str, Callable[[], None]] = {
        "worker": victims.kill,
        "pool process": lambda: _kill_pool_process(victim),
    }
    _begin(stage, point.life)
    rule = stage.proxy.cut_before if point.when == "before" else stage.proxy.cut_after
    cut = rule(point.n, in_drain, kills[point.dies])
    _stop(stage, victim)
    cut.nth = 0  # if the drain took fewer commands this time, the rule is not to fire later
    victims.fork()
    where = f"{point.dies} dies {point.when} {point.n} ({cut.command})"
    assert_laws(stage, point.life, where)
    return cut.fired.is_set()


def _count(stage: Stage, life: Life) -> int:
    """Let drains pass uncut; return how many commands one takes."""
    victims = Victims(stage, "prefork", GRACE)
    try:
        for _ in range(2):  # the first time the server does not know the scripts yet
            victim = victims.alive()
            _begin(stage, life)
            stage.proxy.forget()
            _stop(stage, victim)
            commands = stage.proxy.count(in_drain)
            victims.fork()
            assert_laws(stage, life, "uncut")
        return commands
    finally:
        victims.kill()


def _begin(stage: Stage, life: Life) -> None:
    stage.begin()
    stage.publish(life)
    wait_for(lambda: stage.journal.count("linger"), LIFE_DEADLINE_S, "the task to begin")
    wait_for(lambda: not stage.client.exists(VICTIM), LIFE_DEADLINE_S, "the other to be claimed")


def _stop(stage: Stage, victim: Victim) -> None:
    os.kill(victim.pid, signal.SIGTERM)
    wait_for(lambda: not victim.alive(), LIFE_DEADLINE_S, victim.log_text)


def _kill_pool_process(victim: Victim) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself, or all of the worker has
        victim.kill_pool_process()
