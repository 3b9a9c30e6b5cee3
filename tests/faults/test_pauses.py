"""A worker that was frozen or cut off comes back to find its tasks with another."""

from __future__ import annotations

import pytest

from faults.scene import FULL, Scene
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
    notes = [scene.push("note", f"n{i}") for i in range(6)]
    scene.wait_claimed(FULL)
    late = set(scene.claimed().values())
    second = scene.worker("second")

    first.sigstop() if fault == "frozen" else proxy.partition()
    scene.began(*HELD, times=2)
    scene.let(*HELD)
    scene.settle()
    stored = {each: scene.meta(each) for each in held + notes}
    first.sigcont() if fault == "frozen" else proxy.heal()

    scene.wait(lambda: _is_back(scene, first, former_id), "the first worker's new entry")
    for word in HELD:
        # Both of its pool processes ran to the end; the second's took part in nothing.
        scene.wait(lambda word=word: scene.journal.count("passed", word) == 2, "both executions")
    scene.wait(lambda: first.log().count("commits nothing") == len(HELD), "word of stale fences")
    assert [scene.journal.count("ran", f"n{i}") for i in range(6)] == [1] * 6
    assert {each: scene.meta(each) for each in stored} == stored, "the results are as they were"
    assert {scene.state(each) for each in stored} == {"SUCCESS"}
    for task_id in held:
        assert _told(first, task_id, "commits nothing") == 1
    for task_id in notes:
        claimed = any(task_id in parcel for parcel in late)
        assert _told(first, task_id, "lost the claim on") == int(claimed)
    scene.settle()

    second.stop()
    fresh = scene.push("note", "fresh")
    scene.wait(lambda: scene.journal.count("ran", "fresh"), "the first worker to go on")
    scene.settle()
    assert scene.record(fresh)["w"] == scene.member(first) != former_id


def _is_back(scene: Scene, worker: Worker, former_id: str) -> bool:
    return former_id not in scene.members() and len(scene.members()) == 2


def _told(worker: Worker, task_id: str, what: str) -> int:
    """Count a worker's log lines that say this of a task."""
    return sum(task_id in line and what in line for line in worker.log().splitlines())
