"""Processes die: what they held comes back, and only who is to blame is blamed."""

from __future__ import annotations

import random

import pytest
from celery import chord

from faults.havoc import Fleet
from faults.scene import FULL, Scene, kill
from relier.errors import MaxResurrectionsExceededError
from support.worker import Worker

PARTS = 60
NEIGHBOURS = [f"w{i}" for i in range(8)]


def test_all_that_a_killed_worker_held_comes_back(scene: Scene) -> None:
    first = scene.worker("first")
    held = [scene.push("hold", word) for word in ("a", "b")]
    scene.began("a", "b")
    notes = [scene.push("note", f"n{i}") for i in range(6)]
    scene.wait_claimed(FULL)
    second = scene.worker("second")
    first.sigkill_tree()
    scene.began("a", "b", times=2)
    again = {entry.fields[1:4] for entry in scene.journal.entries("began")[2:]}
    assert again == {("a", "2", "1"), ("b", "2", "1")}, "second start, first resurrection"
    scene.let("a", "b")
    scene.settle()

    assert [scene.journal.count("ran", f"n{i}") for i in range(6)] == [1] * 6
    assert [scene.returns(each) for each in notes] == [(0, 0)] * 6, "the unstarted are not blamed"
    assert [scene.returns(each) for each in held] == [(0, 1)] * 2, "each was the other's neighbour"
    assert {scene.state(each) for each in held + notes} == {"SUCCESS"}
    assert scene.members() == {scene.member(second)}, "nothing is left of the dead worker"


def test_what_dies_with_a_pool_process_runs_again(scene: Scene) -> None:
    worker = scene.worker("only")
    struck, spared = scene.push("hold", "struck"), scene.push("hold", "spared")
    scene.began("struck", "spared")
    note = scene.push("note", "behind")
    kill(scene.journal.entries("began", "struck")[0].pid)
    scene.began("struck", times=2)
    scene.let("struck", "spared")
    scene.settle()

    assert scene.journal.count("began", "spared") == 1
    assert scene.journal.count("ran", "behind") == 1
    assert scene.returns(struck) == (1, 0)
    assert scene.returns(spared) == scene.returns(note) == (0, 0)
    assert {scene.state(each) for each in (struck, spared, note)} == {"SUCCESS"}
    assert worker.running


def test_poison_runs_so_often_and_no_more(scene: Scene) -> None:
    worker = scene.worker("only", concurrency=3)
    spared = scene.push("hold", "spared")
    scene.began("spared")
    task, note = scene.app.tasks["poison"], scene.app.tasks["note"]
    mourned = task.apply_async(("mourned",), link_error=scene.app.signature("mourn")).id
    header = [task.s("part"), note.s("other part")]
    body = chord(header, app=scene.app)(scene.app.signature("sink")).id
    notes = [scene.push("note", f"n{i}") for i in range(5)]
    scene.accepted.append(mourned)
    scene.wait(lambda: len(scene.letters()) == 2, "two dead letters")
    scene.let("spared")
    scene.settle()

    assert scene.journal.count("ran", "mourned") == 3, "max_resurrections is 2"
    assert scene.journal.count("ran", "part") == 3
    letter = scene.letters()[mourned]
    assert letter["reason"] == "max_resurrections"
    assert letter["name"] == "poison"
    assert "MaxResurrectionsExceededError" in letter["error"]
    result = scene.app.AsyncResult(mourned)
    assert (result.state, type(result.result)) == ("FAILURE", MaxResurrectionsExceededError)
    scene.wait(lambda: scene.journal.count("mourned"), "the errback")
    assert scene.journal.count("mourned", mourned) == 1
    scene.wait(lambda: scene.state(body) == "FAILURE", "the chord to learn of it")
    assert scene.journal.count("body") == 0
    assert scene.journal.count("began", "spared") == 1
    assert {scene.state(each) for each in (spared, *notes)} == {"SUCCESS"}
    assert scene.returns(spared) == (0, 0)
    assert worker.running


@pytest.mark.slow
def test_a_task_that_takes_its_worker_down_leaves_the_innocent_alive(scene: Scene) -> None:
    fleet: list[Worker] = []

    def staffed() -> None:
        """Keep two workers alive, as a supervisor would."""
        alive = [worker for worker in fleet if worker.running]
        for _ in range(2 - len(alive)):
            name = f"shift{len(fleet)}"
            fleet.append(scene.worker(name, concurrency=4, wait_ready=False))

    innocents = [scene.push("work", word, 2.0) for word in NEIGHBOURS[:3]]
    slayer = scene.push("slayer", "slayer")
    innocents += [scene.push("work", word, 2.0) for word in NEIGHBOURS[3:]]
    scene.wait(
        lambda: staffed() or slayer in scene.letters(), "the slayer's dead letter", deadline_s=90
    )
    scene.wait(
        lambda: staffed() or all(scene.state(each) == "SUCCESS" for each in innocents),
        "the innocent to end",
        deadline_s=60,
    )
    scene.settle()

    assert scene.journal.count("ran", "slayer") == 4, "max_resurrections is 3"
    assert scene.letters()[slayer]["reason"] == "max_resurrections"
    assert scene.state(slayer) == "FAILURE"
    assert [scene.returns(each)[0] for each in innocents] == [0] * len(innocents), "not blamed"


@pytest.mark.slow
def test_a_chord_is_whole_though_a_worker_dies_every_second(scene: Scene) -> None:
    fleet = Fleet(scene, size=3, concurrency=4, seed=random.randrange(1_000_000))
    words = [f"w{number}" for number in range(PARTS)]
    header = [scene.app.tasks["work"].s(word, 0.6) for word in words]
    body = chord(header, app=scene.app)(scene.app.signature("sink"))
    fleet.ravage([(8, 1.0, fleet.kill_worker)], lambda: scene.state(body.id) == "SUCCESS")
    scene.settle([body.id, *(part.id for part in body.parent.results)])

    print(f"{fleet.kills}, {scene.journal.count('began')} starts of {PARTS} parts")
    assert fleet.kills["worker"]
    runs = scene.journal.entries("body")
    assert {entry.fields for entry in runs} == {("body", *words)}
    assert len(runs) <= 1 + sum(scene.returns(body.id)), "once, and once more for each kill"
    assert scene.letters() == {}
