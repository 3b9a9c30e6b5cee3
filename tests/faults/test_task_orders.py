"""`rl tasks cancel` and `rl tasks retry`, whatever the task does, and whoever dies meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from faults.scene import Scene
from relier.cli.main import rl

QUICK = ("--without-mingle", "--without-gossip")


def ask(scene: Scene, *arguments: str, status: int = 0) -> Any:
    """Give an order; return its answer."""
    done = CliRunner().invoke(rl, ["tasks", *arguments, "--url", scene.url, "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout) if status in (0, 1) else json.loads(done.stderr)


def began(scene: Scene, word: str) -> str:
    task_id = scene.push("hold", word)
    scene.began(word)
    return task_id


def test_what_waits_is_ended_as_revoked_by_the_first_worker_that_comes(scene: Scene) -> None:
    queued = scene.push("note", "queued")
    scheduled = scene.app.tasks["note"].apply_async(("scheduled",), countdown=3600).id
    scene.accepted.append(scheduled)
    assert ask(scene, "cancel", queued)["cancelled"]["state"] == "queued"
    assert ask(scene, "cancel", scheduled)["cancelled"]["state"] == "scheduled"
    ask(scene, "cancel", queued)

    scene.worker("w", concurrency=1, options=QUICK)
    scene.settle()
    assert [scene.state(each) for each in (queued, scheduled)] == ["REVOKED", "REVOKED"]
    assert scene.journal.count("ran") == 0
    assert not ask(scene, "cancel", queued, status=1)["cancelled"]["noted"], "it had ended"


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_runs_is_stopped_only_when_asked(scene: Scene, pool: str) -> None:
    worker = scene.worker("w", pool=pool, concurrency=2, options=QUICK)
    task_id = began(scene, "long")
    assert ask(scene, "cancel", task_id)["cancelled"]["state"] == "running"
    assert scene.record(task_id)["s"] == "r", "it runs on"

    answer = ask(scene, "cancel", task_id, "--terminate")
    assert (answer["cancelled"]["ordered"], answer["stopped"]) == (True, True)
    scene.let("long")
    after = scene.push("note", "after")
    scene.settle()
    assert scene.state(task_id) == "REVOKED"
    assert scene.returns(task_id) == (0, 0), "nobody is blamed"
    assert scene.state(after) == "SUCCESS", "its process, or another, goes on"
    assert worker.running


def test_a_worker_that_is_too_old_to_be_told_is_said_to_be(scene: Scene) -> None:
    worker = scene.worker("w", concurrency=1, options=QUICK)
    task_id = began(scene, "long")
    scene.redis.hdel(scene.keys.worker(scene.member(worker)), "stops")
    assert ask(scene, "cancel", task_id, "--terminate", status=1)["cancelled"]["too_old"]
    scene.let("long")
    scene.settle()
    assert scene.state(task_id) == "SUCCESS"


def test_a_cancelled_task_whose_worker_dies_does_not_come_back(scene: Scene) -> None:
    worker = scene.worker("first", concurrency=1, options=QUICK)
    task_id = began(scene, "long")
    ask(scene, "cancel", task_id)
    worker.sigkill_tree()
    scene.worker("second", concurrency=1, options=QUICK)
    scene.settle()
    assert scene.state(task_id) == "REVOKED"
    assert scene.journal.count("began", "long") == 1


def test_retry_makes_what_is_scheduled_due_and_gives_the_dead_another_life(scene: Scene) -> None:
    scheduled = scene.app.tasks["note"].apply_async(("scheduled",), countdown=3600).id
    scene.accepted.append(scheduled)
    poisoned = scene.app.tasks["poison"].push("poison").id
    assert ask(scene, "retry", poisoned, status=1)["state"] == "queued"
    scene.worker("w", concurrency=1, options=QUICK, env={"RELIER_MAX_RESURRECTIONS": "0"})
    scene.wait(lambda: poisoned in scene.letters(), "a dead letter")
    assert ask(scene, "retry", scheduled)["hastened"]
    scene.settle()
    assert scene.state(scheduled) == "SUCCESS"

    runs = scene.journal.count("ran", "poison")
    assert ask(scene, "retry", poisoned)["release"]["released"]
    scene.wait(lambda: scene.journal.count("ran", "poison") > runs, "another life")
    scene.wait(lambda: poisoned in scene.letters(), "its end")
    assert ask(scene, "retry", scheduled, status=1)["state"] == "ended"


def test_nobody_knows_the_task(scene: Scene) -> None:
    for order in ("cancel", "retry"):
        assert "there is no task nobody" in ask(scene, order, "nobody", status=4)["error"]
