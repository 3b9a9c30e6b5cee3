"""`rl worker` on a fleet with failures in it."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import celery
import pytest
from celery.contrib.testing.worker import start_worker
from click.testing import CliRunner, Result

import relier
from faults.scene import Scene
from relier.cli.main import rl
from relier.store import claiming
from relier.store.address import Address
from relier.store.client import Store

QUICK = ("--without-mingle", "--without-gossip")


def ask(scene: Scene, *arguments: str) -> Result:
    return CliRunner().invoke(rl, ["worker", *arguments, "--url", scene.url])


def status(scene: Scene, *arguments: str) -> list[Any]:
    done = ask(scene, "status", *arguments, "--json")
    assert done.exit_code == 0, done.output
    found: list[Any] = json.loads(done.stdout)["workers"]
    return found


def test_status_says_what_each_worker_does(scene: Scene) -> None:
    assert ask(scene, "status").stdout == "There are no workers.\n"
    scene.push("hold", "long")
    busy = scene.worker("busy", concurrency=1, options=QUICK)
    scene.began("long")
    scene.push("note", "behind")
    scene.wait_claimed(2)
    idle = scene.worker("idle", pool="solo", options=QUICK)
    scene.wait(lambda: all(each["queues"] for each in status(scene)), "their first beats")
    first, second = status(scene)
    assert (first["name"], first["pid"], first["pool"], first["size"]) == (
        "busy@test",
        busy.pid,
        "prefork",
        1,
    )
    assert (first["state"], first["running"], first["claimed"]) == ("busy", 1, 1)
    assert (second["name"], second["state"], second["pid"]) == ("idle@test", "idle", idle.pid)
    assert (second["queues"], second["lease_s"]) == (["labour"], 1.5)
    assert (first["relier"], first["celery"]) == (relier.__version__, celery.__version__)
    assert first["uptime_ms"] > 0
    assert first["beat_age_ms"] < 1500
    [shown] = status(scene, "busy")
    assert shown["worker_id"] == first["worker_id"]
    assert "lease 1.5 s" in ask(scene, "status", "busy@test").stdout

    scene.let("long")
    scene.settle()
    scene.wait(lambda: status(scene, "busy")[0]["done"] == 2, "its counters")


def test_a_frozen_worker_is_silent_and_a_drained_one_says_so(scene: Scene) -> None:
    scene.push("hold", "long")
    worker = scene.worker("only", pool="threads", options=QUICK)
    scene.began("long")
    os.kill(worker.pid, signal.SIGSTOP)
    scene.wait(lambda: status(scene)[0]["state"] == "silent", "its silence to be noticed")
    os.kill(worker.pid, signal.SIGCONT)
    scene.wait(lambda: status(scene)[0]["state"] == "busy", "it to be heard again")
    worker.sigterm()
    scene.wait(lambda: status(scene)[0]["state"] == "draining", "it to drain")
    scene.let("long")
    assert worker.wait() == 0


def test_an_unknown_worker_is_status_4_with_the_nearest(scene: Scene) -> None:
    scene.worker("harbour", pool="solo", options=QUICK)
    done = ask(scene, "status", "habour")
    assert done.exit_code == 4
    assert "did you mean harbour@test?" in done.stderr


def test_status_shows_a_thousand_workers(scene: Scene) -> None:
    store, keys = Store(Address.parse(scene.url), scene.keys), scene.keys
    for number in range(1000):
        store.run(claiming.hello(keys, f"w{number}", {"epoch": 1, "queues": "a,b,c"}))
    found = status(scene)
    assert len(found) == 1000
    assert ask(scene, "status").stdout.count("\n") == 1001
    store.close()


# -- reset


def test_a_killed_worker_is_forgotten_though_nobody_is_there_to_notice(scene: Scene) -> None:
    held = scene.push("hold", "long")
    behind = scene.push("note", "behind")
    first = scene.worker("first", concurrency=1, options=QUICK)
    scene.began("long")
    scene.wait_claimed(2)
    first.sigkill_tree()
    done = ask(scene, "reset", "first", "--timeout", "0.5")
    assert done.exit_code == 1, done.output
    assert "1 task that it ran, 1 that it had not begun, 0 that had ended" in done.stdout
    assert "`rl run-resurrector`" in done.stdout
    assert status(scene)[0]["state"] == "dying"
    scene.worker("second", options=QUICK)
    scene.began("long", times=2)
    assert ask(scene, "status", "first").exit_code == 4
    scene.let("long")
    scene.settle()
    assert (scene.returns(held), scene.returns(behind)) == ((1, 0), (0, 0))


def test_a_worker_that_nobody_can_judge_yet_is_only_given_up_by_force(scene: Scene) -> None:
    scene.push("hold", "long")
    first = scene.worker("first", concurrency=1, options=QUICK)
    scene.began("long")
    entry = scene.keys.worker(scene.member(first))
    scene.wait(lambda: scene.redis.hget(entry, "client_id"), "its first beat")
    os.kill(first.pid, signal.SIGSTOP)
    scene.redis.hset(entry, mapping={"client_id": "", "hb": 600_000})
    first.sigkill_tree()
    scene.worker("second", options=QUICK)
    done = ask(scene, "reset", "first")
    assert done.exit_code == 1
    assert "cannot be seen from here" in done.stderr
    assert "--force --yes" in done.stderr
    assert ask(scene, "reset", "first", "--force").exit_code == 2
    done = ask(scene, "reset", "first", "--force", "--yes", "--json")
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout)["workers"]
    assert (found["running"], found["gone"]) == (1, True)
    scene.began("long", times=2)
    scene.let("long")
    scene.settle()


def test_a_living_worker_is_left_alone_and_by_force_commits_nothing(scene: Scene) -> None:
    held = scene.push("hold", "long")
    first = scene.worker("first", concurrency=1, options=QUICK)
    scene.began("long")
    before = scene.member(first)
    done = ask(scene, "reset", "first")
    assert (done.exit_code, scene.member(first)) == (1, before)
    assert "it beats" in done.stderr
    assert ask(scene, "reset", "first", "--force", "--yes").exit_code == 0
    scene.wait(lambda: before not in scene.members(), "its entry to go")
    scene.wait(scene.members, "it to go on under another id")
    scene.let("long")
    scene.settle()
    assert scene.journal.count("passed", "long") == 2
    assert (scene.events("ended")[held], scene.returns(held)) == (1, (1, 0))
    assert ask(scene, "reset", "frist").exit_code == 4


# -- restart


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_restarted_worker_hands_over_and_comes_back_in_its_process(
    scene: Scene, pool: str
) -> None:
    held, behind = scene.push("hold", "long"), scene.push("note", "behind")
    worker = scene.worker("first", pool=pool, concurrency=1, options=QUICK)
    scene.began("long")
    before = scene.member(worker)
    done = ask(scene, "restart", "first", "--timeout", "0.5")
    assert done.exit_code == 0, done.output
    after = scene.member(worker)
    assert after != before
    assert f"first@test is back as {after}" in done.stdout
    assert done.stdout.endswith("1 handed off. 0 lost.\n")
    assert f"handed off  hold  {held}" in done.stdout
    scene.let("long")
    scene.settle()
    assert (scene.returns(held), scene.returns(behind)) == ((0, 0), (0, 0))
    assert worker.running
    assert worker.stop() == 0
    assert scene.members() == set()


def test_a_worker_that_is_told_to_stop_while_it_restarts_stops(scene: Scene) -> None:
    scene.push("hold", "long")
    worker = scene.worker("first", concurrency=1, options=QUICK)
    scene.began("long")
    store = Store(Address.parse(scene.url), scene.keys)
    order = claiming.drain(scene.keys, scene.member(worker), "order|60000", restart=True)
    assert store.run(order)
    scene.wait(lambda: "ordered from afar" in worker.log(), "the order to be heard")
    worker.sigterm()
    scene.wait(lambda: "drain: SIGTERM" in worker.log(), "the signal to be heard")
    scene.let("long")
    assert worker.wait() == 0
    assert scene.members() == set()
    store.close()


def test_all_workers_restart_one_after_the_other(scene: Scene) -> None:
    fleet = [scene.worker(name, pool="solo", options=QUICK) for name in ("left", "right")]
    before = scene.members()
    scene.wait(lambda: all(each["queues"] for each in status(scene)), "their first beats")
    done = ask(scene, "restart", "--all", "--json")
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["name"], each["done"]) for each in found] == [
        ("left@test", True),
        ("right@test", True),
    ]
    assert {scene.member(worker) for worker in fleet}.isdisjoint(before)
    assert ask(scene, "restart").exit_code == 2


def test_a_worker_that_cannot_begin_anew_is_not_even_drained(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in scene.journal.env.items():
        monkeypatch.setenv(name, value)
    with start_worker(
        scene.app, pool="threads", concurrency=1, perform_ping_check=False, shutdown_timeout=30
    ):
        [member] = scene.wait(scene.members, "it to join")
        done = ask(scene, "restart", member)
        assert done.exit_code == 1
        assert "it runs inside another program" in done.stderr
        assert scene.redis.hget(scene.keys.worker(member), "drain") is None
        store = Store(Address.parse(scene.url), scene.keys)
        assert not store.run(claiming.drain(scene.keys, member, "order|", restart=True))
        store.close()
