"""Crash at every step: one task's life, cut before and after each Redis command that it sends.

The rule kills the victim (its pool process, or all of it) as the n-th command passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chord

from faults.lives import LIVES, Life
from faults.stage import (
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
    points = every_point(count_commands(stage, life, in_dispatch, producer))
    tried = 0
    for n, when in points:
        cut = shoot(stage, life, n, when, in_dispatch, lambda: None, producer)
        assert_laws(stage, life, f"dispatch {when} {n} ({cut.command})")
        tried += cut.fired.is_set()
        cut.nth = 0
    stage.report(f"dispatch by {life.name}", tried, len(points))
