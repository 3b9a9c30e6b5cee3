"""Crash at every step, of whole workers: in a task's life, and at the main process's own commands.

The worker that is forked next takes over what the killed one held.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import pytest

from faults.lanes import Lanes, Victims, open_lanes
from faults.lives import CALM, LIVES, VICTIM, Life
from faults.sampling import sample
from faults.stage import (
    FINISH_DEADLINE_S,
    LIFE_DEADLINE_S,
    Matches,
    Stage,
    Victim,
    assert_laws,
    count_commands,
    events,
    every_point,
    finished,
    in_pool,
    shoot,
)
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from support.messages import stock_message
from support.proxy import Command, Cut
from support.settled import leftovers
from support.wait import wait_for

When = Literal["before", "after"]
DEAD = Keys().dead(VICTIM)
A_FEW = 8
"""Of each life beside the first, whose every command is a cut of the pool process elsewhere."""


@pytest.fixture(scope="module")
def lanes(
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Lanes]:
    with open_lanes(session_server, tmp_path_factory.mktemp("lanes"), request) as running:
        yield running


# -- in a task's life


class Step(NamedTuple):
    """One crash point: the n-th command of a life, before or after it took effect."""

    life: Life
    n: int
    when: When


def in_life(stage: Stage) -> Matches:
    """Match what the process that runs the task sends, and each claim that may take a message."""

    def matches(command: Command) -> bool:
        return in_pool(command) or (command.script == "claim" and stage.client.exists(VICTIM) == 1)

    return matches


def steps(stage: Stage, pool: str, lives: Sequence[Life]) -> list[list[Step]]:
    """Let each life pass uncut, and return its crash points."""
    found = []
    victims = Victims(stage, pool)
    try:
        stage.wait_ready(victims.now)
        for life in lives:
            matches = in_life(stage)
            count_commands(stage, life, matches)  # the first time there are greetings beside them
            points = every_point(count_commands(stage, life, matches))
            found.append([Step(life, n, when) for n, when in points])
    finally:
        victims.kill()
    return found


def die_at(victims: Victims, step: Step) -> bool:
    """Kill a worker at one step, fork the next, and hold what they did to the laws."""
    stage, life, victim = victims.stage, step.life, victims.alive()
    cut = shoot(stage, life, step.n, step.when, in_life(stage), victim.kill)
    wait_for(lambda: cut.fired.is_set() or finished(stage, life), LIFE_DEADLINE_S)
    if cut.fired.is_set():
        victims.fork()
    assert_laws(stage, life, f"{victims.pool}, {step.when} {step.n} ({cut.command})")
    return _met(cut)


def _met(cut: Cut) -> bool:
    cut.nth = 0  # if the life took fewer commands this time, the rule is not to fire later
    return cut.fired.is_set()


@pytest.mark.timeout(240)
def test_a_whole_worker_dies_at_every_command(lanes: Lanes) -> None:
    _series(lanes, "prefork", LIVES[:1])


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_worker_of_another_pool_dies_at_every_command(lanes: Lanes, pool: str) -> None:
    _series(lanes, pool, LIVES[:1])


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_whole_worker_dies_in_every_life(lanes: Lanes) -> None:
    _series(lanes, "prefork", LIVES[1:], A_FEW)


def _series(lanes: Lanes, pool: str, lives: Sequence[Life], budget: int | None = None) -> None:
    every = steps(lanes.stages[0], pool, lives)
    points = [each for of in every for each in sample(of, f"{of[0].life.name}, {pool}", budget)]
    tried = lanes.each(pool, points, die_at)
    names = lives[0].name if len(lives) == 1 else f"{len(lives)} lives"
    lanes.stages[0].report(f"{names}, whole {pool} worker", tried, sum(map(len, every)))


# -- at the main process's own commands


@dataclass(frozen=True)
class Moment:
    """What makes a main process send a command of its own, and what must have happened in the end.

    Args:
        script: the command.
        publish: publishes a message; returns its id.
        provoke: brings the command about, once the cut is set and the message is there.
        journal: how often each line must be in the journal.
        letters: how many dead letters there must be.
        holds: the task begins first, and goes on only when the victim is dead.
        starts_late: the victim starts when the message is there, and dies as it does.
    """

    script: str
    publish: Callable[[Any], str]
    provoke: Callable[[Stage, Victim], object] = lambda _stage, _victim: None
    journal: Sequence[tuple[int, tuple[object, ...]]] = ((1, ("effect", "word", 1)),)
    letters: int = 0
    holds: bool = False
    starts_late: bool = False

    def __str__(self) -> str:
        return self.script


def _effect(app: Any, **options: Any) -> str:
    return str(app.tasks["effect"].apply_async((1, "word"), queue=VICTIM, **options).id)


def _held(app: Any) -> str:
    """Publish a task that begins, and ends as soon as `_let` says so."""
    task_id = str(uuid.uuid4())
    link = app.tasks["effect"].si(1, "word").set(queue=CALM)
    part = app.tasks["part"].s(1, after=_gate(task_id))
    return str(part.apply_async(queue=VICTIM, link=link, task_id=task_id).id)


def _gate(task_id: str) -> str:
    return f"gate of {task_id}"


def _let(stage: Stage) -> None:
    stage.client.hset(f"rl:task:{_gate(stage.task_id)}", "s", "e")


def _stock_and_early(app: Any) -> str:
    # An idle worker may take a second to look, for no stock producer rings its bell.
    eta = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    return _put(app, task="effect", eta=eta)


def _without_task(app: Any) -> str:
    return _put(app)


def _put(app: Any, **headers: Any) -> str:
    task_id = str(uuid.uuid4())
    raw = stock_message(VICTIM, task_id, 1, "word", **headers)
    app.relier.broker.store.redis.lpush(VICTIM, raw)
    return task_id


def _began(stage: Stage) -> None:
    wait_for(lambda: stage.journal.count("part", 1), LIFE_DEADLINE_S, "the task to begin")


def _sever(stage: Stage, _victim: Victim) -> None:
    stage.proxy.sever()


def _kill_pool(_stage: Stage, victim: Victim) -> None:
    victim.kill_pool_process()


def _stop(_stage: Stage, victim: Victim) -> None:
    os.kill(victim.pid, signal.SIGTERM)


def _stop_when_done(stage: Stage, victim: Victim) -> None:
    wait_for(lambda: stage.journal.count("effect", "word", 1), LIFE_DEADLINE_S, "the task to end")
    _stop(stage, victim)


def _stop_at_once(_stage: Stage, victim: Victim) -> None:
    os.kill(victim.pid, signal.SIGQUIT)


MOMENTS = [
    Moment("hello", _effect, starts_late=True),
    Moment("beat", _held, holds=True),
    Moment("reconcile", _held, _sever, holds=True),
    Moment("reap_claim", _held, _kill_pool, holds=True),
    Moment("release", _held, _stop_at_once, holds=True),
    Moment("drained", _effect, _stop_when_done),
    Moment("goodbye", _effect, _stop_when_done),
    Moment("defer", _stock_and_early),
    Moment("bury", _without_task, journal=[(0, ("effect",))], letters=1),
]


def die_at_moment(victims: Victims, point: tuple[Moment, When]) -> bool:
    """Kill a worker at a command of its main process, fork the next, and look at the laws."""
    (moment, when), stage = point, victims.stage
    stage.client.delete(DEAD)  # lives that failed for good have left their letters
    victim = victims.alive()
    if moment.starts_late:
        victim.kill()
        wait_for(lambda: not victim.alive(), LIFE_DEADLINE_S)
    stage.begin()
    if moment.holds:
        stage.task_id = moment.publish(stage.app)
        _began(stage)
    rule = stage.proxy.cut_before if when == "before" else stage.proxy.cut_after
    cut = rule(1, lambda command: command.script == moment.script, victims.kill)
    if not moment.holds:
        stage.task_id = moment.publish(stage.app)
    if moment.starts_late:
        victim = victims.fork()
    moment.provoke(stage, victim)
    wait_for(cut.fired.is_set, LIFE_DEADLINE_S, f"{moment.script} to be sent")
    victims.fork()
    if moment.holds:
        _let(stage)
    assert_moment(stage, moment, f"{when} {moment.script}")
    return True


def assert_moment(stage: Stage, moment: Moment, where: str) -> None:
    """Wait until all has settled; then everything has happened so often, and nothing is left."""

    def account() -> dict[str, object]:
        ends = events(stage.client, stage.task_id)
        return {
            "journal": [(stage.journal.count(*line), line) for _, line in moment.journal],
            "letters": stage.client.zcard(DEAD),
            "left": leftovers(stage.client),
            "ends": moment.letters or ends.count("ended") + ends.count("dead"),
        }

    due = {"journal": list(moment.journal), "letters": moment.letters, "left": {}, "ends": 1}
    wait_for(lambda: account() == due, FINISH_DEADLINE_S, lambda: f"{where}: {account()}")


@pytest.mark.timeout(240)
def test_a_whole_worker_dies_at_its_own_commands(lanes: Lanes) -> None:
    points: list[tuple[Moment, When]] = [
        (moment, when) for moment in MOMENTS for when in ("before", "after")
    ]
    tried = lanes.each("prefork", points, die_at_moment)
    lanes.stages[0].report("what a main process sends of its own", tried, len(points))
