"""A worker that was frozen or cut off comes back to find its tasks with another."""

from __future__ import annotations

import pytest

from faults.scene import Scene
from support.proxy import Proxy
from support.worker import Worker

HELD = ("a", "b")


@pytest.mark.parametrize("fault", ["frozen", "cut off"])
def test_a_worker_given_up_for_dead_changes_nothing(fault: str, scene: Scene, proxy: Proxy) -> None:
    # Behind the proxy a worker's address is not its own, so only its silence can tell.
    first = scene.worker("first", broker=proxy.url)
    former_id = scene.member(first)
    held = [scene.push("hold", word) for word in HELD]
    scene.began(*HELD)
    notes = [scene.push("note", f"n{i}") for i in range(3)]
    scene.wait_claimed(len(held + notes))
    second = scene.worker("second")

    first.sigstop() if fault == "frozen" else proxy.partition()
    scene.began(*HELD, times=2)
    scene.let(*HELD)
    scene.settle()
    stored = {each: scene.meta(each) for each in held + notes}
    first.sigcont() if fault == "frozen" else proxy.heal()

    scene.wait(lambda: _is_back(scene, former_id), "the first worker's new entry")
    for word in HELD:
        scene.wait_journal("passed", word, times=2)
    scene.wait(lambda: len(_told(first, "")) >= len(stored), "a line for each lost claim")
    assert [scene.journal.count("ran", f"n{i}") for i in range(3)] == [1] * 3
    assert {each: scene.meta(each) for each in stored} == stored, "the results are as they were"
    assert {scene.state(each) for each in stored} == {"SUCCESS"}
    for task_id in held:
        assert _told(first, task_id) == ["commits nothing"]
    for task_id in notes:
        assert _told(first, task_id) == ["does not start here"]
    scene.settle()

    second.stop()
    fresh = scene.push("note", "fresh")
    scene.wait(lambda: scene.journal.count("ran", "fresh"), "the first worker to go on")
    scene.settle()
    assert scene.record(fresh)["w"] == scene.member(first) != former_id


def _is_back(scene: Scene, former_id: str) -> bool:
    return former_id not in scene.members() and len(scene.members()) == 2


def _told(worker: Worker, task_id: str) -> list[str]:
    """Return what a worker said of a task when it found its claim gone; a line each."""
    lines = worker.log().splitlines()
    said = ("commits nothing", "does not start here", "claim on")
    return [each for line in lines if task_id in line for each in said if each in line]
