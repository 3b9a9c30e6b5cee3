"""Calls with the same idempotency key run once, whatever dies, and all get the same result."""

from __future__ import annotations

import random

import pytest
from celery import chord

from faults.apps import labour
from faults.havoc import Fleet
from faults.scene import Scene, kill
from relier.errors import PayloadError
from relier.protocol.identity import Identity
from relier.store import claiming, publishing, running
from relier.store.broker import Broker
from relier.store.publishing import Outgoing

CALLS, KILLS, RESULT_S = 50, 3, 60.0
KEYS, EACH = 200, 3


def results(scene: Scene, ids: list[str]) -> set[str]:
    """Return the different results of these calls."""
    return {scene.app.AsyncResult(each).get(RESULT_S) for each in ids}


def parked(scene: Scene) -> int:
    """Return how many messages wait behind a key."""
    lists = scene.redis.scan_iter("rl:{*}:parked:*", count=1000)
    return sum(scene.redis.llen(each) for each in lists)


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def test_one_of_many_runs_though_its_process_is_killed(scene: Scene, pool: str) -> None:
    for name in ("first", "second"):
        scene.worker(name, pool=pool, concurrency=2)
    ids = [scene.push("once", "pay") for _ in range(CALLS // 2)]
    scene.began("pay")
    ids += [scene.push("once", "pay") for _ in range(CALLS - len(ids))]
    scene.wait(lambda: parked(scene) > 10, "duplicates to be parked")
    for times in range(1, KILLS + 1):
        kill(scene.journal.entries("began", "pay")[-1].pid)
        if pool == "threads":
            scene.worker(f"next{times}", pool=pool, concurrency=2)
        scene.began("pay", times=times + 1)
    scene.let("pay")

    assert len(results(scene, ids)) == 1
    scene.settle()
    assert scene.journal.count("passed", "pay") == 1
    assert scene.journal.count("began", "pay") == KILLS + 1, "one at a time"
    assert parked(scene) == 0
    assert scene.app.tasks["once"].push("pay").get(RESULT_S) in results(scene, ids)
    assert scene.journal.count("passed", "pay") == 1


def test_all_that_wait_for_a_key_are_woken_by_the_end_of_its_owner(scene: Scene) -> None:
    scene.worker("only", env={"RELIER_HEARTBEAT_TTL": "60"})
    scene.push("once", "pay")
    scene.began("pay")
    key = scene.app.tasks["once"].call_key.of(("pay",), {})
    _park_by_hand(scene.app.relier.broker, "express", key, 1_200)
    scene.redis.delete(scene.keys.parked_keys)  # so that no sweep finds them
    scene.let("pay")
    scene.wait(lambda: scene.redis.llen("express") == 1_200, "all of them to be woken")
    assert parked(scene) == 0


def _park_by_hand(broker: Broker, queue: str, key: str, count: int) -> None:
    """Park duplicates as a worker would that takes one after the other."""
    store, keys, worker = broker.store, broker.keys, "hand"
    store.run(claiming.hello(keys, worker, {"epoch": 1}))
    for number in range(count):
        who = Identity(f"d{number}", f"t{number}", 0, "once")
        out = Outgoing(who.task_id, who.token, 0, "", 0, "once", f"raw {number}")
        store.run(publishing.enqueue(keys, queue, [out]))
        (claimed,) = store.run_once(claiming.claim(keys, worker, 1, [queue], 1, [""])).claimed
        operation = running.start(
            keys, claimed.claim, who, own_limit=None, max_resurrections=5, idempotency_key=key
        )
        assert store.run(operation).verdict == "parked"


def test_one_key_from_two_queues(scene: Scene) -> None:
    scene.worker("first", queues=(labour.QUEUE,))
    scene.worker("second", queues=("express",))
    once = scene.app.tasks["once"]
    ids = [scene.push("once", "pay")]
    scene.began("pay")
    ids += [once.apply_async(("pay",), queue="express").id for _ in range(3)]
    ids += [once.s("pay").delay().id, once.apply_async((), {"word": "pay"}).id]
    scene.wait(lambda: parked(scene) == 5, "five parked")
    scene.let("pay")
    assert results(scene, ids) == {f"pay by {ids[0]}"}
    assert scene.journal.count("began", "pay") == 1


def test_an_owner_that_fails_for_good_lets_the_next_one_run(scene: Scene) -> None:
    scene.worker("only", concurrency=3)
    ids = [scene.app.tasks["once"].push("luck", kind="fail twice").id for _ in range(5)]
    scene.accepted += ids
    scene.settle()
    states = [scene.state(each) for each in ids]
    assert sorted(states) == ["FAILURE"] * 2 + ["SUCCESS"] * 3
    successes = [each for each, state in zip(ids, states, strict=True) if state == "SUCCESS"]
    assert len(results(scene, successes)) == 1
    assert scene.journal.count("passed", "luck") == 1


def test_a_key_lasts_as_long_as_it_is_told(scene: Scene) -> None:
    scene.worker("only")
    scene.let("pay")
    task = scene.app.tasks["once_a_second"]
    first = task.push("pay").get(RESULT_S)
    scene.wait(lambda: not list(scene.redis.scan_iter("rl:idem:*")), "the key to expire")
    assert task.push("pay").get(RESULT_S) != first
    assert scene.journal.count("passed", "pay") == 2


def test_a_function_says_what_is_the_same(scene: Scene) -> None:
    scene.worker("only")
    task = scene.app.tasks["once_a_letter"]
    scene.let("ann", "alice", "bob")
    same = {task.push(word).get(RESULT_S) for word in ("ann", "alice", "ann")}
    assert len(same) == 1
    assert task.push("bob").get(RESULT_S).startswith("bob")


def test_a_call_without_a_key_is_refused_at_dispatch(scene: Scene) -> None:
    once, odd = scene.app.tasks["once"], scene.app.tasks["once_at_odds"]
    for dispatch in (once.push, once.delay):
        with pytest.raises(PayloadError, match="has no canonical form"):
            dispatch("pay", kind={1})
    with pytest.raises(IndexError):
        odd.push("pay")
    assert scene.waiting() == 0
    # From a producer that knows no better it fails, and the worker lives on.
    scene.worker("only")
    failed = scene.app.send_task("once_at_odds", ("pay",))
    with pytest.raises(IndexError):
        failed.get(RESULT_S)
    assert scene.journal.count("began") == 0


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_key_function_that_kills_its_process_is_bounded(scene: Scene, pool: str) -> None:
    worker = scene.worker("only", pool=pool)
    beside, poison = scene.push("note", "beside"), scene.push("once_lethal", "poison")
    for times in range(1, 4):
        scene.wait_journal("asked", "poison", times=times)
        if pool == "solo":
            worker = scene.worker(f"next{times}", pool=pool)
    scene.settle([beside, poison])
    assert scene.journal.count("asked", "poison") == 3, "max_resurrections + 1 times"
    assert scene.journal.count("began", "poison") == 0
    assert scene.letters()[poison]["reason"] == "max_resurrections"
    assert (scene.state(beside), scene.state(poison)) == ("SUCCESS", "FAILURE")
    assert worker.running


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_key_function_that_hangs_is_stopped_in_time(scene: Scene, pool: str) -> None:
    worker = scene.worker("only", pool=pool)
    stuck, beside = scene.push("once_stuck", "pay"), scene.push("note", "beside")
    scene.settle([stuck, beside])
    assert (scene.state(beside), scene.state(stuck)) == ("SUCCESS", "FAILURE")
    assert scene.letters()[stuck]["reason"] == "hard_timeout"
    assert scene.journal.count("began", "pay") == 0
    assert scene.returns(stuck) == (0, 0)
    assert worker.running
    if pool == "threads":
        worker.sigkill()  # its thread sleeps on


def test_a_key_function_that_exits_fails_its_task(scene: Scene) -> None:
    worker = scene.worker("only", pool="solo")
    failed = scene.push("once_resigned", "pay")
    scene.settle()
    assert (scene.state(failed), scene.returns(failed)) == ("FAILURE", (0, 0))
    assert worker.running


def test_who_waits_for_its_key_has_not_used_up_an_attempt(scene: Scene) -> None:
    scene.worker("only", concurrency=2)
    first, second = (scene.app.tasks["once_a_letter"].push(word) for word in ("bob", "bert"))
    scene.wait(lambda: parked(scene) == 1, "one to be parked")
    waits = next(each.id for each in (first, second) if scene.record(each.id)["s"] == "q")
    assert scene.record(waits)["a"] == "0"
    scene.let("bob", "bert")
    assert first.get(RESULT_S) == second.get(RESULT_S)


def test_what_follows_from_a_duplicate_follows(scene: Scene) -> None:
    scene.worker("only")
    scene.let("pay")
    once, note = scene.app.tasks["once"], scene.app.tasks["note"]
    once.push("pay").get(RESULT_S)
    body = scene.app.signature("sink")
    once.apply_async(("pay",), link=note.si("linked"))
    chord([once.s("pay"), once.s("pay")], app=scene.app)(body)
    scene.wait(lambda: scene.journal.count("body"), "the chord's body")
    scene.wait(lambda: scene.journal.count("ran", "linked"), "the callback")
    assert scene.journal.count("passed", "pay") == 1


def test_a_paused_owner_commits_nothing(scene: Scene) -> None:
    first = scene.worker("first", concurrency=2)
    ids = [scene.push("once", "pay")]
    scene.began("pay")
    second = scene.worker("second", concurrency=2)
    ids.append(scene.push("once", "pay"))
    scene.wait(lambda: parked(scene) == 1, "the duplicate to be parked")
    first.sigstop()
    scene.began("pay", times=2)
    scene.let("pay")
    [result] = results(scene, ids)
    first.sigcont()
    scene.wait(lambda: scene.journal.count("passed", "pay") == 2, "the paused body to end")
    scene.wait(lambda: "commits nothing" in first.log(), "the paused worker to say so")
    scene.settle()
    assert results(scene, ids) == {result}
    assert second.running


def test_a_sweep_wakes_whom_nobody_woke(scene: Scene) -> None:
    worker = scene.worker("first", concurrency=2)
    scene.push("once", "pay")
    scene.began("pay")
    scene.worker("second", concurrency=2)
    waiting = scene.push("once", "pay")
    scene.wait(lambda: parked(scene) == 1, "the duplicate to be parked")
    # As an operator's hand, or a version that knows no keys, would leave it.
    [claims] = scene.redis.scan_iter(scene.keys.claims(scene.queue, scene.member(worker)))
    worker.sigstop()
    [number] = [name[2:] for name in scene.redis.hkeys(claims) if name.startswith("k:")]
    scene.redis.hdel(claims, f"k:{number}", f"s:{number}", number)
    scene.let("pay")
    assert scene.app.AsyncResult(waiting).get(RESULT_S) == f"pay by {waiting}"
    scene.wait(lambda: not scene.redis.scard(scene.keys.parked_keys), "the sweep to forget the key")
    worker.sigcont()


@pytest.mark.slow
def test_every_key_commits_once_in_a_fleet_under_fire(scene: Scene) -> None:
    seed = random.randrange(1_000_000)
    fleet = Fleet(scene, size=3, seed=seed)
    words = [f"w{number}" for number in range(KEYS)]
    calls = [word for word in words for _ in range(EACH)]
    random.Random(seed).shuffle(calls)
    ids: dict[str, list[str]] = {word: [] for word in words}
    for word in calls:
        ids[word].append(scene.app.tasks["once"].push(word, kind="brief").id)
    scene.accepted = [each for same in ids.values() for each in same]
    metas = [f"celery-task-meta-{each}" for each in scene.accepted]
    fleet.ravage(
        [(25, 0.3, fleet.kill_process), (4, 2.0, fleet.kill_worker)],
        lambda: scene.redis.exists(*metas) == len(metas),
    )
    scene.settle()  # each call ended once, so two commits of a key would be two results

    print(f"{fleet.kills}, {scene.journal.count('began')} runs of {KEYS} keys")
    assert min(fleet.kills.values()) > 0
    for same in ids.values():
        [result] = results(scene, same)
        assert result.rpartition(" ")[2] in same
    assert parked(scene) == 0
    scene.wait(lambda: not scene.redis.scard(scene.keys.parked_keys), "the sweep to forget the key")
    assert scene.letters() == {}
