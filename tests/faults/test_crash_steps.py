"""Crash at every step: one task's life, cut before and after each Redis command that it sends.

The rule kills the victim (its pool process, or all of it) as the n-th command passes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group

from faults.stage import (
    CALM,
    VICTIM,
    Life,
    Stage,
    assert_laws,
    count_commands,
    die_in_pool_at_every_command,
    every_point,
    in_dispatch,
    open_stage,
    shoot,
)
from faults.steps_app import make_app
from relier.store.embedded import EmbeddedServer

# -- the lives


def _link_and_chord(app: Any) -> str:
    part, first, second = app.tasks["part"], str(uuid.uuid4()), str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    one = part.s(1, after=second).set(queue=VICTIM, task_id=first, link=[link])
    two = part.s(2).set(queue=CALM, task_id=second)
    chord([one, two], app.tasks["total"].s().set(queue=CALM)).apply_async()
    return first


def _failure_in_chord(app: Any) -> str:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    failed = app.tasks["failed"]
    errback = failed.s("part").set(queue=CALM)
    one = app.tasks["failing"].s(after=second)
    one = one.set(queue=VICTIM, task_id=first, link_error=[errback])
    two = app.tasks["part"].s(2).set(queue=CALM, task_id=second)
    body = app.tasks["total"].s().set(queue=CALM)
    chord([one, two], body.on_error(failed.s("body").set(queue=CALM))).apply_async()
    return first


def _stopped_in_chord(app: Any) -> str:
    first, failed = str(uuid.uuid4()), app.tasks["failed"]
    one = app.tasks["stopped"].s().set(queue=VICTIM, task_id=first)
    one = one.set(link_error=[failed.s("part").set(queue=CALM)])
    two = app.tasks["part"].s(2).set(queue=CALM)
    body = app.tasks["total"].s().set(queue=CALM)
    chord([one, two], body.on_error(failed.s("body").set(queue=CALM))).apply_async()
    return first


def _failing_chain_in_chord(app: Any) -> str:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    failed = app.tasks["failed"]
    one = app.tasks["failing"].s(after=second).set(queue=VICTIM, task_id=first)
    one = chain(one, app.tasks["effect"].s("rest").set(queue=CALM))
    two = app.tasks["part"].s(2).set(queue=CALM, task_id=second)
    body = app.tasks["total"].s().set(queue=CALM)
    chord([one, two], body.on_error(failed.s("body").set(queue=CALM))).apply_async()
    return first


def _chain_into_chord(app: Any) -> str:
    first, effect = str(uuid.uuid4()), app.tasks["effect"]
    fan = group(effect.s("left").set(queue=CALM), effect.s("right").set(queue=CALM))
    head = app.tasks["part"].s(1).set(queue=VICTIM, task_id=first)
    chain(head, fan, app.tasks["effect"].si(0, "end").set(queue=CALM)).apply_async()
    return first


def _canvas_callbacks(app: Any) -> str:
    first, effect = str(uuid.uuid4()), app.tasks["effect"]
    fan = group(effect.s("left").set(queue=CALM), effect.s("right").set(queue=CALM))
    header = [effect.s("up").set(queue=CALM), effect.s("down").set(queue=CALM)]
    joined = chord(header, effect.si(0, "end").set(queue=CALM))
    part = app.tasks["part"].s(1).set(queue=VICTIM, task_id=first, link=[fan, joined])
    part.apply_async()
    return first


def _climb(app: Any) -> str:
    first = str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    app.tasks["climb"].s().set(queue=VICTIM, task_id=first, link=[link]).apply_async()
    return first


def _retry(app: Any) -> str:
    first = str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    app.tasks["again"].s().set(queue=VICTIM, task_id=first, link=[link]).apply_async()
    return first


def _replace(app: Any) -> str:
    first = str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    app.tasks["swap"].s().set(queue=VICTIM, task_id=first, link=[link]).apply_async()
    return first


LIVES = [
    Life("link and chord", _link_and_chord, [("total", "[10, 20]"), ("effect", "link", 10)]),
    Life(
        "failure in chord",
        _failure_in_chord,
        [("failed", "part"), ("failed", "body")],
        [("total",)],
    ),
    Life(
        "hard timeout in chord",
        _stopped_in_chord,
        [("failed", "part"), ("failed", "body")],
        [("total",), ("outlived",)],
    ),
    Life(
        "failing chain in chord",
        _failing_chain_in_chord,
        [("failed", "body")],
        [("total",), ("effect",)],
    ),
    Life(
        "chain into chord",
        _chain_into_chord,
        [("effect", "left", 10), ("effect", "right", 10), ("effect", "end", 0)],
    ),
    Life(
        "canvas callbacks",
        _canvas_callbacks,
        [("effect", word, 10) for word in ("left", "right", "up", "down")] + [("effect", "end", 0)],
    ),
    Life("checkpoints", _climb, [("effect", "link", 3)]),
    Life("retry", _retry, [("effect", "link", 1)]),
    Life("replace", _replace, [("total", "[10, 20]"), ("effect", "link", 30)]),
]


@pytest.fixture(scope="module")
def stage(
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Stage]:
    with open_stage(session_server, tmp_path_factory.mktemp("steps"), request) as running:
        yield running


# -- the series


@pytest.mark.timeout(120)
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_the_pool_process_dies_at_every_command(stage: Stage, life: Life) -> None:
    die_in_pool_at_every_command(stage, life)


def _push(app: Any) -> str:
    return str(app.tasks["effect"].push("1", "sent").id)


def _push_many(app: Any) -> str:
    calls = [(number, "sent") for number in (1, 2, 3)]
    return str(app.tasks["effect"].push_many(calls)[0].id)


def _delay(app: Any) -> str:
    return str(app.tasks["effect"].delay("1", "sent").id)


def _chord(app: Any) -> str:
    part = app.tasks["part"]
    return str(chord([part.s(1), part.s(2)], app.tasks["total"].s()).apply_async().parent[0].id)


DISPATCHES = [
    Life("push", _push, [("effect", "sent", 1)]),
    Life("push_many", _push_many, [("effect", "sent", n) for n in (1, 2, 3)]),
    Life("delay", _delay, [("effect", "sent", 1)]),
    Life("chord", _chord, [("total", "[10, 20]"), ("part", 1), ("part", 2)]),
]


@pytest.mark.parametrize("life", DISPATCHES, ids=lambda life: life.name)
def test_the_producer_is_cut_at_every_command(stage: Stage, life: Life) -> None:
    producer = make_app(stage.proxy.url, stage.proxy.url)
    count_commands(stage, life, in_dispatch, producer)
    points = every_point(count_commands(stage, life, in_dispatch, producer), 100)
    tried = 0
    for n, when in points:
        cut = shoot(stage, life, n, when, in_dispatch, lambda: None, producer)
        assert_laws(stage, life, f"dispatch {when} {n} ({cut.command})")
        tried += cut.fired.is_set()
        cut.nth = 0
    stage.report(f"dispatch by {life.name}", tried, len(points))
