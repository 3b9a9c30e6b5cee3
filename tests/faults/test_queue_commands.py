"""`rl queue` on a fleet that is at work."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import chain, chord
from click.testing import CliRunner, Result

from faults.scene import Scene
from relier.cli.main import rl
from relier.ops import purging
from relier.protocol.identity import identify, mint_worker_id
from relier.store import claiming, pausing, running
from relier.store import purging as store_purging
from relier.store.address import Address
from relier.store.client import Store
from support.messages import stock_message

QUICK = ("--without-mingle", "--without-gossip")


def ask(scene: Scene, *arguments: str) -> Result:
    return CliRunner().invoke(rl, ["queue", *arguments, "--url", scene.url])


def facts(scene: Scene, *arguments: str) -> Any:
    done = ask(scene, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def row(scene: Scene) -> Any:
    [found] = [each for each in facts(scene, "list")["rows"] if each["name"] == scene.queue]
    return found


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_pause_stops_what_has_not_begun_and_nothing_else(scene: Scene, pool: str) -> None:
    held = scene.push("hold", "long")
    for i in range(3):
        scene.push("note", f"n{i}")
    scene.worker("first", pool=pool, concurrency=1, options=QUICK)
    scene.began("long")
    scene.wait_claimed(4)
    done = ask(scene, "pause", scene.queue, "--reason", "printer on fire", "--by", "ann")
    assert (done.exit_code, done.stdout) == (
        0,
        "Paused labour. 1 task of it still runs; `rl queue resume labour` lets it go on.\n",
    )
    later = scene.push("note", "later")
    scene.let("long")
    scene.settle([held], queued=4)
    assert scene.journal.count("ran") == 0, "not even what the worker had in hand"

    scene.wait(lambda: row(scene)["consumers"] == 1, "its first beat to say what it takes from")
    found = row(scene)
    assert (found["waiting"], found["running"], found["claimed"]) == (4, 0, 0)
    assert (found["paused"]["by"], found["paused"]["reason"]) == ("ann", "printer on fire")
    assert found["oldest_ms"] > 0
    assert found["rate"]["in_per_s"] >= 0.5
    assert "by ann: printer on fire" in ask(scene, "list").stdout
    again = ask(scene, "pause", scene.queue, "--by", "bob")
    assert "paused before: since" in again.stdout
    assert "by ann" in again.stdout
    assert not facts(scene, "pause", scene.queue, "--by", "bob")["paused"]

    assert facts(scene, "resume", scene.queue)["pause"]["by"] == "ann"
    scene.settle()
    assert scene.journal.count("ran", "later") == 1
    assert scene.returns(later) == (0, 0)
    assert row(scene)["paused"] is None
    assert ask(scene, "resume", scene.queue).stdout == "labour was not paused.\n"


def test_a_start_that_finds_its_queue_paused_gives_the_message_back_once(scene: Scene) -> None:
    store, keys, worker = Store(Address.parse(scene.url), scene.keys), scene.keys, mint_worker_id()
    scene.push("note", "word")
    [raw] = scene.redis.lrange(scene.queue, 0, -1)
    store.run(claiming.hello(keys, worker, {"epoch": 1}))
    [claimed] = store.run_once(claiming.claim(keys, worker, 1, [scene.queue], 1, [""])).claimed
    message = json.loads(raw)
    who = identify(message["headers"], message["properties"]["delivery_tag"])
    start = running.start(keys, claimed.claim, who, own_limit=None, max_resurrections=5)
    store.run(pausing.pause(keys, scene.queue, "order", "ann", ""))
    assert store.run(start).verdict == "paused"
    assert store.run(start).verdict == "stale", "asked again, it has nothing to give back"
    assert scene.redis.lrange(scene.queue, 0, -1) == [raw]
    assert scene.claimed() == {}
    assert scene.record(scene.accepted[0])["s"] == "q"
    store.close()


def test_a_repeated_order_to_pause_says_the_same(scene: Scene) -> None:
    store, keys = Store(Address.parse(scene.url), scene.keys), scene.keys
    order = pausing.pause(keys, "q", "order", "an|n", "why | not")
    assert store.run(order) == store.run(order)
    assert store.run(order).ours
    stands = store.run(order).pause
    assert (stands.by, stands.reason) == ("an/n", "why | not")
    assert not store.run(pausing.pause(keys, "q", "other", "ann", "")).ours
    scene.redis.set(keys.paused("q"), "by hand")
    assert not store.run(order).ours
    assert store.run(order).pause == pausing.Pause(0, "", "by hand")
    store.close()


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_unknown_queue_is_status_4_with_the_nearest(scene: Scene, command: str) -> None:
    scene.push("note", "word")
    done = ask(scene, command, "labuor")
    assert done.exit_code == 4
    assert done.stderr == "rl: there is no queue labuor: did you mean labour?\n"
    assert "`rl queue list` shows" in ask(scene, command, "x").stderr
    assert scene.redis.keys("rl:{labuor}*") == []


def test_a_queue_that_only_stock_producers_fill_is_known(scene: Scene) -> None:
    scene.redis.lpush("stock", stock_message("stock", "one", task="note"))
    assert ask(scene, "pause", "stock").exit_code == 0
    assert ask(scene, "resume", "stock").exit_code == 0


def test_a_list_of_reliers_own_is_no_queue(scene: Scene) -> None:
    replay = scene.keys.replay(scene.queue)
    scene.redis.lpush(replay, "committed")
    assert ask(scene, "purge", replay, "--yes").exit_code == 4
    assert scene.redis.llen(replay) == 1


def test_an_empty_server_has_no_queues(scene: Scene) -> None:
    assert ask(scene, "list").stdout.startswith("No queues")
    assert facts(scene, "list")["rows"] == []


# -- purge


def test_a_purge_ends_what_waits_and_leaves_what_runs(scene: Scene) -> None:
    held = scene.push("hold", "long")
    scene.worker("first", concurrency=1, options=QUICK, env={"RELIER_TEST_PREFETCH": "1"})
    scene.began("long")
    waiting = [scene.push("note", f"n{i}") for i in range(130)]
    scheduled = scene.app.tasks["note"].apply_async(("later",), countdown=3600).id
    scene.redis.lpush(scene.queue, "no message at all")
    claimed = len(scene.claimed()) - 1

    preview = facts(scene, "purge", scene.queue, "--scheduled", "--dry-run")
    assert (preview["waiting"], preview["scheduled"]) == (131 - claimed, 1)
    assert preview["names"] == {"note": 131 - claimed, "(no task)": 1}
    assert scene.waiting() == 131 - claimed, "a dry run touches nothing"

    done = ask(scene, "purge", scene.queue)
    assert (done.exit_code, scene.waiting()) == (2, 131 - claimed)
    assert "--yes" in done.stderr
    done = ask(scene, "purge", scene.queue, "--yes")
    assert done.exit_code == 0, done.output
    count = 131 - claimed
    assert done.stdout == f"Purged {count} messages of labour: {count} waiting, 0 scheduled.\n"
    again = facts(scene, "purge", scene.queue, "--yes", "--scheduled")
    assert (again["waiting"], again["scheduled"], again["ended"]) == (0, 1, 1)
    scene.let("long")
    scene.settle([held, *waiting, scheduled])
    ran = {entry.fields[1] for entry in scene.journal.entries("ran")}
    assert ran <= {"n0", "n1", "n2"}, "only what the worker held"
    inspected = json.loads(
        CliRunner()
        .invoke(rl, ["tasks", "inspect", waiting[-1], "--json", "--url", scene.url])
        .stdout
    )
    last = inspected["timeline"][-1]
    assert (inspected["state"], last["kind"], last["detail"]) == ("ended", "ended", "purged")


def test_a_purged_part_fails_its_chord_and_a_purged_step_its_chain(scene: Scene) -> None:
    app, tasks = scene.app, scene.app.tasks
    mourn = tasks["mourn"].s()
    plain = chord([tasks["note"].s("a"), tasks["note"].s("b")], app=app)(
        tasks["sink"].s().on_error(mourn)
    )
    chained = chord(
        [chain(tasks["note"].s("c"), tasks["note"].s()), tasks["note"].s("d")], app=app
    )(tasks["sink"].s().on_error(mourn))
    scene.push("note", "alone")
    facts(scene, "pause", scene.queue)
    done = facts(scene, "purge", scene.queue, "--yes")
    assert (done["waiting"], done["ended"], done["revoked"]) == (5, 1, 4)
    scene.worker("first", options=QUICK)
    scene.wait(
        lambda: {scene.state(each.id) for each in (plain, chained)} == {"FAILURE"},
        "both chords to fail, though the queue is paused",
    )
    assert "Dependency" in str(plain.result)
    facts(scene, "resume", scene.queue)
    scene.wait_journal("mourned", times=2)
    scene.settle()
    assert scene.journal.count("ran") == 0
    assert scene.journal.count("body") == 0


def test_a_purge_with_revoke_tells_whoever_waits(scene: Scene) -> None:
    task_id = scene.push("note", "word")
    assert facts(scene, "purge", scene.queue, "--yes", "--revoke")["revoked"] == 1
    scene.worker("first", options=QUICK)
    scene.wait(lambda: scene.state(task_id) == "REVOKED", "its result")
    assert str(scene.app.AsyncResult(task_id).result) == "purged"
    scene.settle()


def test_a_batch_of_a_purge_that_is_repeated_removes_nothing_more(scene: Scene) -> None:
    store, keys = Store(Address.parse(scene.url), scene.keys), scene.keys
    for i in range(4):
        scene.push("note", f"n{i}")
    raws = [raw.encode() for raw in reversed(scene.redis.lrange(scene.queue, 0, -1))]
    doomed = [purging._doomed(raw, "", revoke=False) for raw in raws[:2]]
    order = store_purging.purge(keys, scene.queue, "batch", "", doomed, b"")
    assert store.run(order) == store.run(order) == (2, 2, 0, 0)
    assert scene.waiting() == 2
    # One was claimed since it was looked at, one has come to the head.
    doomed = [purging._doomed(raw, "", revoke=False) for raw in raws[2:]]
    scene.redis.rpop(scene.queue)
    order = store_purging.purge(keys, scene.queue, "another", "", doomed, b"")
    assert store.run(order).removed == 1
    scene.redis.rpush(scene.queue, "back")
    order = store_purging.purge(keys, scene.queue, "a third", "", doomed, b"")
    assert store.run(order).removed == 0
    assert [scene.record(each)["s"] for each in scene.accepted] == ["e", "e", "q", "e"]
    store.close()


def test_a_purged_task_may_be_dispatched_again_but_not_its_copy(scene: Scene) -> None:
    task_id = scene.push("note", "word")
    [raw] = scene.redis.lrange(scene.queue, 0, -1)
    scene.redis.lpush(scene.queue, raw)
    done = facts(scene, "purge", scene.queue, "--yes")
    assert (done["ended"], done["others"]) == (1, 1)
    scene.redis.lpush(scene.queue, raw)
    scene.app.tasks["note"].apply_async(("again",), task_id=task_id)
    scene.worker("first", options=QUICK)
    scene.wait_journal("ran", "again")
    scene.wait(lambda: scene.waiting() == 0 and not scene.claimed(), "both to be taken")
    assert scene.journal.count("ran", "word") == 0
