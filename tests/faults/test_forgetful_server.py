"""A server that lost its last writes: nothing stays with a worker that does not run it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.scene import Scene
from relier.store.embedded import EmbeddedServer

LOG = "appendonlydir"


@pytest.fixture
def remember(fresh_server: EmbeddedServer, tmp_path: Path) -> Callable[[], None]:
    """Keep what the server has written so far."""

    def keep() -> None:
        shutil.copytree(fresh_server.data_dir / LOG, tmp_path / LOG)

    return keep


@pytest.fixture
def forget(fresh_server: EmbeddedServer, tmp_path: Path) -> Callable[[], None]:
    """Kill the server, and start it with what was kept."""

    def crash() -> None:
        fresh_server.kill()
        shutil.rmtree(fresh_server.data_dir / LOG)
        shutil.copytree(tmp_path / LOG, fresh_server.data_dir / LOG)
        fresh_server.start()

    return crash


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_a_server_forgot_runs_again_and_what_runs_stays(
    pool: str, own_scene: Scene, remember: Callable[[], None], forget: Callable[[], None]
) -> None:
    scene = own_scene
    worker = scene.worker("only", pool=pool)
    ended, running = scene.push("hold", "ended"), scene.push("hold", "running")
    scene.began("ended", "running")
    began = scene.push("hold", "began")
    scene.wait_claimed(3)
    remember()
    scene.let("ended")
    scene.began("began")
    scene.wait(lambda: scene.record(ended)["s"] == "e", "the first to end")
    forget()
    assert scene.record(ended)["s"] == "r", "as the server remembers it"
    scene.wait(lambda: scene.events("disowned")[ended], "the forgotten end to be noticed")
    assert sum(scene.events("disowned").values()) == 1, "what runs is left alone"
    scene.let("running", "began")
    scene.settle()
    assert [scene.journal.count("began", word) for word in ("ended", "running", "began")] == [
        2,
        1,
        1,
    ]
    assert all(scene.returns(each) == (0, 0) for each in (ended, running, began))
    assert {scene.state(each) for each in (ended, running, began)} == {"SUCCESS"}
    assert worker.running
    assert len(scene.members()) == 1


@pytest.mark.parametrize("task", ["hold", "stepwise"])
def test_a_run_whose_start_was_forgotten_commits_though_its_queue_is_paused(
    task: str, scene: Scene
) -> None:
    worker = scene.worker("only", concurrency=1, options=("--without-mingle",))
    task_id = scene.push(task, "forgotten")
    scene.began("forgotten")
    [held] = scene.claimed()
    claims, number = held.split()
    with scene.redis.pipeline() as server:
        # As a log that lost its end has it; and its deaths make it a suspect beside another.
        server.hdel(claims, f"s:{number}")
        server.hset(scene.keys.task(task_id), mapping={"s": "q", "c": "", "i": 3})
        server.hset(
            scene.keys.worker(scene.member(worker)), "trial", f"|{10**14}|{scene.keys.fence}"
        )
        server.set(scene.keys.paused(scene.queue), "1")
        server.execute()
    scene.let("forgotten")
    scene.settle()
    scene.redis.delete(scene.keys.paused(scene.queue))
    assert scene.state(task_id) == "SUCCESS"
    assert scene.journal.count("began", "forgotten") == 1


@pytest.mark.parametrize("task", ["hold", "stepwise"])
def test_of_two_runs_of_a_claim_that_was_forgotten_one_commits(
    task: str, own_scene: Scene, remember: Callable[[], None], forget: Callable[[], None]
) -> None:
    """The claim went with the log's end, so the message waits again while its task runs."""
    scene, paused = own_scene, own_scene.keys.paused(own_scene.queue)
    scene.redis.set(paused, "1")
    worker = scene.worker("only")
    task_id = scene.push(task, "forgotten")
    remember()
    scene.redis.delete(paused)
    scene.began("forgotten")
    forget()
    assert scene.record(task_id)["s"] == "q", "as the server remembers it"
    scene.redis.delete(paused)
    scene.began("forgotten", times=2)
    if task == "stepwise":
        scene.wait_journal("told", "forgotten")
    scene.let("forgotten")
    scene.settle()
    scene.wait(lambda: "commits nothing" in worker.log(), "the first run to be told")
    assert scene.journal.count("began", "forgotten") == 2
    assert scene.journal.count("told", "forgotten") == (task == "stepwise")
    assert scene.state(task_id) == "SUCCESS"
    assert scene.returns(task_id) == (0, 0), "nobody is to blame"
    assert worker.running
