"""What follows from a task happens once, whatever dies or is away while it is sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from celery import chord

from faults.lives import ACCUMULATE, BODY, FAILED_CHAIN, FAN, LINKED_PART, MAP, RETRY, VICTIM, Life
from faults.scene import Scene
from faults.stage import (
    FINISH_DEADLINE_S,
    Stage,
    Victim,
    assert_laws,
    die_in_pool_at_every_command,
    in_pool,
    open_stage,
)
from relier.protocol import outcome as outcomes
from relier.store.embedded import EmbeddedServer
from relier.worker.refusal import MOST_DEFERRALS
from support.proxy import Command, Proxy
from support.wait import wait_for

AWAY_S = 3.0
ANY_BACKEND = [LINKED_PART, FAILED_CHAIN, FAN, RETRY]
POLLED = [LINKED_PART, BODY, FAILED_CHAIN, FAN]
COUNTED = [LINKED_PART, FAILED_CHAIN]
SAMPLE, POLLED_SAMPLE = 12, 4
"""A polled chord takes a second or more."""


@pytest.fixture(scope="module")
def stage(
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Stage]:
    """A stage whose results are kept where the test says."""
    folder = tmp_path_factory.mktemp(f"results-{request.param}")
    with open_stage(session_server, folder, request, request.param) as running:
        yield running


def results(where: str) -> pytest.MarkDecorator:
    """Have a test's stage keep its results there."""
    return pytest.mark.parametrize("stage", [where], indirect=True)


@contextmanager
def a_victim(stage: Stage, env: dict[str, str] | None = None) -> Iterator[Victim]:
    """Fork a victim that consumes its queue."""
    victim = stage.fork(stage.proxy.url, VICTIM, "prefork", "victim", env=env)
    try:
        stage.wait_ready(victim)
        yield victim
    finally:
        victim.kill()
        wait_for(lambda: not victim.alive(), FINISH_DEADLINE_S)


# -- crashes


@results("here")
@pytest.mark.parametrize("life", [MAP, ACCUMULATE], ids=lambda life: life.name)
def test_a_builtin_task_is_protected(stage: Stage, life: Life) -> None:
    die_in_pool_at_every_command(stage, life, SAMPLE)


@pytest.mark.slow
@pytest.mark.timeout(180)
@results("elsewhere")
@pytest.mark.parametrize("life", ANY_BACKEND, ids=lambda life: life.name)
def test_results_on_another_database(stage: Stage, life: Life) -> None:
    die_in_pool_at_every_command(stage, life, SAMPLE)


@pytest.mark.slow
@pytest.mark.timeout(180)
@results("files")
@pytest.mark.parametrize("life", POLLED, ids=lambda life: life.name)
def test_results_in_files(stage: Stage, life: Life) -> None:
    die_in_pool_at_every_command(stage, life, POLLED_SAMPLE)


@pytest.mark.slow
@pytest.mark.timeout(180)
@results("counter")
@pytest.mark.parametrize("life", COUNTED, ids=lambda life: life.name)
def test_a_backend_that_can_only_increment(stage: Stage, life: Life) -> None:
    die_in_pool_at_every_command(stage, life, POLLED_SAMPLE)


@results("elsewhere")
def test_a_replayed_result_keeps_its_children(stage: Stage) -> None:
    life = Life("mother", _mother, [("mother",), ("effect", "child", 1)])
    with a_victim(stage) as victim:
        stage.begin()
        cut = stage.proxy.cut_after(1, lambda c: c.script == "commit", victim.kill_pool_process)
        stage.publish(life)
        assert_laws(stage, life, "after the commit")
    assert cut.fired.is_set()
    result = stage.app.AsyncResult(stage.task_id)
    assert [type(child.id) for child in result.children] == [str]
    assert result.children[0].get(timeout=10) is None


def _mother(app: Any) -> str:
    return str(app.tasks["mother"].apply_async(queue=VICTIM).id)


# -- a broker that is away


def _publish(command: Command) -> bool:
    return in_pool(command) and command.script == "enqueue"


@results("here")
@pytest.mark.parametrize(
    ("life", "nth"), [(LINKED_PART, 2), (FAILED_CHAIN, 1)], ids=["body", "errback"]
)
def test_a_chord_waits_for_a_broker_that_is_away(stage: Stage, life: Life, nth: int) -> None:
    patient = {"RELIER_HEARTBEAT_TTL": "30", "RELIER_REDIS_SOCKET_TIMEOUT": "1"}
    with a_victim(stage, patient):
        stage.begin()
        cut = stage.proxy.cut_before(nth, _publish, stage.proxy.partition)
        stage.publish(life)
        try:
            cut.wait(FINISH_DEADLINE_S)
            time.sleep(AWAY_S)
        finally:
            stage.proxy.heal()
        assert_laws(stage, life, f"away at publish {nth}")


# -- committed tasks in hands that cannot send what follows


REPLAYS_TRIED = 16


def _committed(scene: Scene, replays: int, parcel: bytes) -> None:
    """Put a committed task into the replay list, as if its process had died."""
    outcome = outcomes.encode(outcomes.Outcome("SUCCESS"))
    head = f"{replays}|0|root|{len(outcome)}|".encode()
    with redis.Redis.from_url(scene.url) as raw:
        raw.rpush(scene.keys.replay(scene.queue), head + outcome + parcel)
        raw.sadd(scene.keys.queues, scene.queue)


def test_what_no_worker_can_read_becomes_a_dead_letter_in_the_end(scene: Scene) -> None:
    _committed(scene, REPLAYS_TRIED, b"|not a message")
    scene.worker("one")
    scene.wait(scene.letters, "a dead letter")
    (letter,) = scene.letters().values()
    assert letter["reason"] == "consequences"
    assert "not JSON" in letter["error"]
    assert scene.redis.llen(scene.keys.replay(scene.queue)) == 0


def test_a_body_that_does_not_decode_becomes_a_dead_letter_in_the_end(scene: Scene) -> None:
    task_id = scene.app.tasks["note"].push("never").id
    message = json.loads(scene.redis.rpop(scene.queue))
    message["content-encoding"], message["content-type"] = "utf-8", "application/x-unheard-of"
    _committed(scene, REPLAYS_TRIED, b"|" + json.dumps(message).encode())
    scene.worker("one")
    scene.wait(scene.letters, "a dead letter")
    assert scene.letters()[task_id]["reason"] == "consequences"
    assert not scene.journal.count("ran")


def test_a_worker_that_does_not_protect_a_task_does_not_run_it_again(scene: Scene) -> None:
    link = scene.app.tasks["note"].s("followed").set(immutable=True)
    scene.app.tasks["note"].apply_async(("never",), link=[link])
    _committed(scene, 0, b"|" + scene.redis.rpop(scene.queue).encode())
    plain = scene.worker("plain", app="faults.apps.plain")
    scene.wait(lambda: "does not protect 'note'" in plain.log(), "the claim to be left")
    scene.worker("protecting")
    scene.wait_journal("ran", "followed")
    assert not scene.journal.count("ran", "never")


def test_a_part_that_nobody_can_run_counts_once_for_its_chord(scene: Scene, proxy: Proxy) -> None:
    """Its worker is killed as it has counted it: the next one does it again, and once."""
    nobody = scene.app.signature("nobody", queue=scene.queue)
    parts = [scene.app.tasks["note"].s("known"), nobody]
    body = scene.app.tasks["sink"].s().on_error(scene.app.tasks["mourn"].s())
    result = chord(parts, app=scene.app)(body)
    unknown = result.parent.results[1].id
    scene.redis.hset(scene.keys.task(unknown), "u", MOST_DEFERRALS)
    counts = proxy.cut_after(1, lambda command: _counts(command, unknown))
    doomed = scene.worker("doomed", broker=proxy.url, wait_ready=False)
    counts.wait(60)
    doomed.sigkill_tree()
    assert unknown not in scene.letters(), "its failure comes first"
    scene.worker("next")
    scene.wait(lambda: unknown in scene.letters(), "its dead letter")
    scene.wait_journal("mourned", result.id)
    scene.wait(lambda: not scene.claimed() and not scene.waiting(), "all to be done")
    assert scene.letters()[unknown]["reason"] == "unregistered"
    assert scene.state(unknown) == scene.state(result.id) == "FAILURE"
    assert scene.journal.count("mourned", result.id) == 1
    assert scene.journal.count("body") == 0


def _counts(command: Command, task_id: str) -> bool:
    """Return whether a command counts this task as a part of its chord."""
    return command.script == "count_part" and any(task_id.encode() in each for each in command.args)
