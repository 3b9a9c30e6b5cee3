"""A worker is asked to stop: it accounts for every task that it holds, and nobody is blamed."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
from celery import chord
from celery.contrib.testing.worker import start_worker
from click.testing import CliRunner, Result

from faults.scene import Scene
from relier.cli.main import rl
from support.proxy import Proxy
from support.worker import Worker

POOLS = ["prefork", *(pytest.param(pool, marks=pytest.mark.slow) for pool in ("threads", "solo"))]
QUICK = ("--without-mingle", "--without-gossip")
LONG_S = 60.0
"""A grace that no test waits for, and what a task of the issue's second kind lasts."""


def drainer(scene: Scene, name: str = "first", *, grace_s: float = LONG_S, **how: Any) -> Worker:
    env = {"RELIER_GRACEFUL_SHUTDOWN_TIMEOUT": str(grace_s), **how.pop("env", {})}
    return scene.worker(name, env=env, options=QUICK, **how)


def account(worker: Worker) -> str:
    """Return the summary that ends a drain's account."""
    [line] = [line for line in worker.log().splitlines() if "drain: done in" in line]
    return line.partition(" s: ")[2]


def order(scene: Scene, *arguments: str) -> Result:
    return CliRunner().invoke(rl, ["worker", "drain", *arguments, "--url", scene.url])


@pytest.mark.parametrize("pool", POOLS)
def test_what_has_not_started_goes_back_and_what_runs_on_is_handed_over(
    scene: Scene, pool: str
) -> None:
    size = 1 if pool == "solo" else 2
    words = [f"long{i}" for i in range(size)]
    held = [scene.push("lasting" if i == 0 else "alasting", w) for i, w in enumerate(words)]
    notes = [scene.push("note", f"n{i}") for i in range(2)]
    first = drainer(scene, grace_s=4, pool=pool, concurrency=size)
    scene.began(*words)
    prefetched = 0 if pool == "solo" else len(notes)
    scene.wait_claimed(size + prefetched)
    second = drainer(scene, "second", concurrency=3)
    first.sigterm()
    asked_s = time.monotonic()
    scene.wait_journal("ran", times=len(notes))
    assert first.running, "the notes did not wait for what runs"
    assert time.monotonic() - asked_s < 3.0
    assert first.wait() == 0
    scene.began(*words, times=2)
    scene.let(*words)
    scene.settle()

    assert account(first) == f"0 completed, {size} handed off, {prefetched} given back"
    for task_id in (*held, *notes[:prefetched]):
        what = "handed off" if task_id in held else "given back"
        assert f"{task_id}] {what}" in first.log()
    assert {scene.journal.count("saved", word) for word in words} == {1}, "each hook has run"
    assert [scene.returns(each) for each in (*held, *notes)] == [(0, 0)] * (size + len(notes))
    again = scene.journal.entries("began", words[0])[1]
    assert again.fields[2:4] == ("2", "0"), "second start, no resurrection"
    found = [entry.fields[2] for entry in scene.journal.entries("found", words[0])]
    assert found == ["None", "[1]"], "it goes on from what its hook has saved"
    assert scene.events("handed") == dict.fromkeys(held, 1)
    assert scene.events("returned") == dict.fromkeys(notes[:prefetched], 1)
    assert {scene.state(each) for each in (*held, *notes)} == {"SUCCESS"}
    assert scene.members() == {scene.member(second)}, "nothing is left of the first"


def test_rolling_deploys_lose_and_repeat_nothing(scene: Scene) -> None:
    long = [f"long{i}" for i in range(4)]
    short = [f"short{i}" for i in range(20)]
    for word in long:
        scene.push("hold", word)
    for word in short:
        scene.push("work", word, 0.25)
    fleet = [drainer(scene, "deploy0", grace_s=3, concurrency=4)]
    scene.began(*long)
    for number in range(1, 4):
        fleet.append(drainer(scene, f"deploy{number}", grace_s=3, concurrency=5))
        assert fleet[-2].stop() == 0
        assert "left" not in account(fleet[-2])
        scene.began(*long, times=number + 1)
    scene.let(*long)
    scene.settle()

    assert [scene.journal.count("passed", word) for word in short] == [1] * len(short)
    assert [scene.journal.count("passed", word) for word in long] == [1] * len(long)
    assert [scene.returns(each) for each in scene.accepted] == [(0, 0)] * len(scene.accepted)
    assert {scene.state(each) for each in scene.accepted} == {"SUCCESS"}
    assert all(f"{len(long)} handed off" in account(worker) for worker in fleet[:-1])


@pytest.mark.slow
def test_what_ends_in_time_is_not_stopped(scene: Scene) -> None:
    first = drainer(scene)
    scene.push("hold", "patient")
    scene.began("patient")
    first.sigterm()
    scene.wait(lambda: "drain: SIGTERM" in first.log(), "the drain to begin")
    scene.let("patient")
    assert first.wait() == 0
    scene.settle()
    assert account(first) == "1 completed, 0 handed off, 0 given back"
    assert scene.journal.count("began", "patient") == 1


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_relier_does_not_protect_ends_as_celery_has_it(scene: Scene, pool: str) -> None:
    scene.app.tasks["unprotected"].delay("plain")
    held = scene.push("hold", "long")
    worker = drainer(scene, grace_s=1, pool=pool)
    scene.began("plain", "long")
    worker.sigterm()
    if pool == "prefork":
        scene.wait(lambda: f"{held}] handed off" in worker.log(), "the other to be handed over")
    else:
        scene.wait(lambda: "waiting for them" in worker.log(), "the grace to be over")
        assert scene.events("handed") == {}
    assert worker.running
    scene.let("plain")
    assert worker.wait() == 0
    assert account(worker) == "0 completed, 1 handed off, 0 given back"
    assert scene.journal.count("began", "plain") == 1
    assert scene.waiting() == 1, "only the held one"


@pytest.mark.slow
def test_celerys_remote_shutdown_is_a_drain(scene: Scene) -> None:
    held = scene.push("hold", "long")
    worker = drainer(scene, grace_s=2)
    scene.began("long")
    scene.app.control.shutdown()
    assert worker.wait() == 0
    assert account(worker) == "0 completed, 1 handed off, 0 given back"
    assert scene.returns(held) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_an_idle_worker_ends_at_once(scene: Scene, pool: str) -> None:
    worker = drainer(scene, pool=pool)
    asked_s = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - asked_s < 5.0
    assert account(worker) == "0 completed, 0 handed off, 0 given back"
    assert scene.members() == set()


@pytest.mark.parametrize(
    ("pool", "signals", "status"),
    [
        ("prefork", ["SIGTERM", "SIGTERM"], 0),
        ("prefork", ["SIGINT", "SIGINT"], 1),
        pytest.param("prefork", ["SIGQUIT"], 1, marks=pytest.mark.slow),
        pytest.param("threads", ["SIGTERM", "SIGTERM"], 0, marks=pytest.mark.slow),
        pytest.param("solo", ["SIGQUIT"], 1, marks=pytest.mark.slow),
    ],
)
def test_who_insists_has_everything_handed_over_now(
    scene: Scene, pool: str, signals: list[str], status: int
) -> None:
    task_id = scene.push("hold", "long")
    worker = drainer(scene, pool=pool)
    scene.began("long")
    for name in signals:
        os.kill(worker.pid, getattr(signal, name))
        scene.wait(lambda name=name: f"drain: {name}" in worker.log(), f"{name} to be heard")
    assert worker.wait() == status
    assert account(worker) == "0 completed, 1 handed off, 0 given back"
    assert scene.waiting() == 1
    assert scene.returns(task_id) == (0, 0)


@pytest.mark.slow
def test_a_cold_shutdown_grants_celerys_soft_shutdown_timeout(scene: Scene) -> None:
    scene.push("hold", "long")
    worker = drainer(scene, env={"RELIER_TEST_SOFT_SHUTDOWN": "45"})
    scene.began("long")
    os.kill(worker.pid, signal.SIGQUIT)
    scene.wait(lambda: "drain: SIGQUIT; what runs has 45 s" in worker.log(), "a soft shutdown")
    scene.let("long")
    assert worker.wait() == 1
    assert account(worker) == "1 completed, 0 handed off, 0 given back"
    scene.settle()


def test_a_part_that_is_handed_over_counts_once_for_its_chord(scene: Scene) -> None:
    hold = scene.app.tasks["hold"]
    words = [f"part{i}" for i in range(3)]
    body = chord([hold.s(word) for word in words], app=scene.app)(scene.app.signature("sink")).id
    first = drainer(scene, grace_s=2, concurrency=2)
    scene.began(*words[:2])
    drainer(scene, "second", concurrency=3)
    scene.let(words[0])
    assert first.stop() == 0
    scene.let(*words)
    scene.wait(lambda: scene.state(body) == "SUCCESS", "the chord's body")
    assert [entry.fields[1:] for entry in scene.journal.entries("body")] == [tuple(words)]


def test_a_worker_that_is_killed_while_it_drains_loses_nothing(scene: Scene) -> None:
    held, note = scene.push("hold", "long"), scene.push("note", "behind")
    first = drainer(scene, concurrency=1)
    scene.began("long")
    scene.wait_claimed(2)
    first.sigterm()
    scene.wait(lambda: f"{note}] given back" in first.log(), "the drain to begin")
    first.sigkill_tree()
    drainer(scene, "second")
    scene.began("long", times=2)
    scene.let("long")
    scene.settle()
    assert scene.journal.count("ran", "behind") == 1
    assert scene.returns(held) == (1, 0), "it ran alone when its worker died"
    assert scene.returns(note) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_drain_without_redis_is_bounded(scene: Scene, proxy: Proxy, pool: str) -> None:
    held, note = scene.push("hold", "long"), scene.push("note", "behind")
    first = drainer(scene, grace_s=2, pool=pool, concurrency=1, broker=proxy.url)
    scene.began("long")
    scene.wait_claimed(2)
    proxy.partition()
    first.sigterm()
    # However long an answer may take otherwise: the platform's patience ends with the grace.
    assert first.wait(12) == 1, "it says that it could not account for all"
    assert first.log().count("Redis is away (") == 1
    for task_id in (held, note):
        assert f"{task_id}] is left for others to bring back" in first.log()
    assert account(first) == (
        "0 completed, 0 handed off, 0 given back, 2 left for others to bring back"
    )
    drainer(scene, "second")
    scene.began("long", times=2)
    scene.let("long")
    scene.settle()


@pytest.mark.parametrize(
    ("pool", "ends"), [("prefork", "in time"), ("threads", "in time"), ("prefork", "too late")]
)
def test_a_drain_goes_on_when_redis_is_back_in_time(
    scene: Scene, proxy: Proxy, pool: str, ends: str
) -> None:
    held, waiting = scene.push("hold", "long"), 0
    if pool == "prefork":  # a thread would begin the next as soon as it is free
        waiting = bool(scene.push("note", "behind"))
    env = {"RELIER_HEARTBEAT_TTL": "60"}
    grace_s = LONG_S if ends == "in time" else 8
    first = drainer(scene, grace_s=grace_s, pool=pool, concurrency=1, broker=proxy.url, env=env)
    scene.began("long")
    scene.wait_claimed(1 + waiting)
    proxy.partition()
    first.sigterm()
    scene.wait(lambda: "drain: Redis is away" in first.log(), "the drain to notice")
    if ends == "in time":
        scene.let("long")
        scene.wait_journal("passed", "long")
    proxy.heal()
    assert first.wait() == 0
    if ends == "in time":
        assert account(first) == f"1 completed, 0 handed off, {waiting:d} given back"
        assert scene.state(held) == "SUCCESS"
    else:
        assert account(first) == "0 completed, 1 handed off, 1 given back"
        assert scene.waiting() == 2
    assert scene.members() == set()
    assert {scene.returns(each) for each in scene.accepted} == {(0, 0)}


@pytest.mark.slow
def test_an_idle_worker_ends_at_once_though_redis_is_away(scene: Scene, proxy: Proxy) -> None:
    worker = drainer(scene, broker=proxy.url)
    proxy.partition()
    worker.sigterm()
    assert worker.wait(20) == 0, "there was nothing to give back"
    assert account(worker) == "0 completed, 0 handed off, 0 given back"


@pytest.mark.slow
def test_a_worker_inside_another_program_does_not_end_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in scene.journal.env.items():
        monkeypatch.setenv(name, value)
    for word in ("inside", "and once more"):
        task_id = scene.push("work", word, 1.0)
        started = start_worker(
            scene.app, pool="threads", concurrency=1, perform_ping_check=False, shutdown_timeout=30
        )
        with started:
            scene.began(word)
        scene.settle()
        assert scene.state(task_id) == "SUCCESS"
        assert scene.members() == set()


# -- from afar


@pytest.mark.parametrize("pool", POOLS)
def test_drain_from_afar_streams_the_account(scene: Scene, pool: str) -> None:
    held, note = scene.push("hold", "long"), scene.push("note", "behind")
    worker = drainer(scene, pool=pool, concurrency=1)
    scene.began("long")
    scene.wait_claimed(1 if pool == "solo" else 2)
    done = order(scene, "first", "--timeout", "1")
    assert done.exit_code == 0, done.output
    assert worker.wait() == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    fates = [
        ["given", "back", "note", note, "(first@test)"],
        ["handed", "off", "hold", held, "(first@test)"],
    ]
    assert lines[:-1] == (fates[1:] if pool == "solo" else fates)
    assert done.stdout.endswith("Clean exit. 1 handed off. 0 lost.\n")
    assert scene.waiting() == 2
    assert scene.returns(held) == (0, 0)


@pytest.mark.slow
def test_drain_from_afar_drains_all_and_tells_a_program(scene: Scene) -> None:
    task_id = scene.push("work", "brief", 1.0)
    fleet = [drainer(scene, name, wait_ready=False) for name in ("left", "right")]
    for worker in fleet:
        worker.wait_ready()
    scene.began("brief")
    done = order(scene, "--json")
    assert done.exit_code == 0, done.output
    assert [worker.wait() for worker in fleet] == [0, 0]
    fate, outcome = map(json.loads, done.stdout.splitlines())
    assert (fate["what"], fate["task_id"], fate["name"]) == ("completed", task_id, "work")
    assert sorted(outcome["workers"]) == ["left@test", "right@test"]
    assert (outcome["clean"], outcome["completed"], outcome["lost"]) == (True, 1, 0)
    assert order(scene).stdout == "There are no workers.\n"


@pytest.mark.slow
def test_drain_from_afar_says_when_a_worker_dies_of_it(scene: Scene) -> None:
    scene.push("hold", "long")
    worker = drainer(scene)
    drainer(scene, "second", concurrency=1)
    scene.began("long")
    scene.redis.hset(scene.keys.worker(scene.member(worker)), "grace", "1000")
    os.kill(worker.pid, signal.SIGSTOP)
    done = order(scene, "first", "--timeout", "0")
    os.kill(worker.pid, signal.SIGKILL)
    assert done.exit_code == 1
    assert "No clean exit. 0 handed off. 0 lost." in done.stdout
    assert "first@test has not accounted" in done.stdout


@pytest.mark.slow
def test_drain_from_afar_names_the_nearest_when_there_is_no_such_worker(scene: Scene) -> None:
    worker = drainer(scene, "harbour")
    done = order(scene, "habour")
    assert done.exit_code == 4
    assert "did you mean harbour@test?" in done.stderr
    assert worker.running
