"""`rl admin` where tasks with keys run, and where some have died."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from faults.scene import Scene
from relier.cli.main import rl
from relier.store import locking
from relier.store.address import Address
from relier.store.client import Store
from relier.tasks.lock import idempotency_lock

QUICK = ("--without-mingle", "--without-gossip")


def ask(scene: Scene, *arguments: str) -> Result:
    return CliRunner().invoke(rl, ["admin", *arguments, "--url", scene.url])


def purge(scene: Scene, *arguments: str) -> Any:
    done = ask(scene, "purge-locks", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def counts(found: Any) -> tuple[int, int, int]:
    return found["owned"], found["orphans"], found["results"]


def test_a_running_owner_keeps_its_key_and_a_result_goes_only_when_asked(scene: Scene) -> None:
    scene.push("once", "long")
    scene.worker("first", options=QUICK)
    scene.began("long")
    assert counts(purge(scene)) == (1, 0, 0)
    assert counts(purge(scene, "--results", "--yes", "--task", "once")) == (1, 0, 0)
    scene.push("once", "long")
    scene.wait(lambda: scene.redis.keys("rl:{labour}:parked:*"), "the second call to wait")
    scene.let("long")
    scene.settle()
    assert scene.journal.count("passed", "long") == 1, "the purge let no second one run"

    assert counts(purge(scene)) == (0, 0, 1)
    assert ask(scene, "purge-locks", "--results").exit_code == 2
    done = ask(scene, "purge-locks", "--results", "--dry-run")
    assert done.stdout == "Would forget 0 keys that nobody owns and 1 result.\n"
    scene.push("once", "long")
    scene.settle()
    assert scene.journal.count("passed", "long") == 1
    assert counts(purge(scene, "--results", "--yes")) == (0, 0, 1)
    assert counts(purge(scene)) == (0, 0, 0)
    scene.push("once", "long")
    scene.settle()
    assert scene.journal.count("passed", "long") == 2, "it was asked for"
    done = ask(scene, "purge-locks", "--task", "twice")
    assert done.exit_code == 4
    assert "there is no key of the task twice" in done.stderr


def test_what_the_dead_left_goes_and_who_waits_there_runs(scene: Scene) -> None:
    """A server that lost its last writes: the owner's claim is gone, its key is not."""
    scene.push("once", "long")
    first = scene.worker("first", options=QUICK)
    scene.began("long")
    scene.worker("second", options=QUICK)
    waits = scene.push("once", "long")
    scene.wait(lambda: scene.redis.keys("rl:{labour}:parked:*"), "the second call to wait")
    worker = scene.member(first)
    first.sigkill_tree()
    scene.redis.delete(scene.keys.claims(scene.queue, worker))
    purge(scene)  # or the sweep, which is as quick
    scene.began("long", times=2)
    scene.let("long")
    scene.wait(lambda: scene.state(waits) == "SUCCESS", "the second call to run")
    assert counts(purge(scene)) == (0, 0, 1)


def test_locks_are_kept_while_they_are_held(scene: Scene) -> None:
    with idempotency_lock("held", app=scene.app):
        assert counts(purge(scene)) == (1, 0, 0)
        assert ask(scene, "purge-locks", "--key", "held").stdout == (
            "Forgot 0 keys that nobody owns; 1 key of what runs now and 0 results stay.\n"
        )
    with idempotency_lock("done", app=scene.app) as lock:
        lock.set_result(1)
    assert counts(purge(scene, "--key", "done", "--results", "--yes")) == (0, 0, 1)
    with idempotency_lock("done", app=scene.app) as lock:
        assert not lock.already_executed
    assert ask(scene, "purge-locks", "--key", "nobody's").exit_code == 4
    assert ask(scene, "purge-locks", "--key", "a", "--task", "b").exit_code == 2


def test_a_lock_whose_claim_is_gone_is_litter(scene: Scene) -> None:
    name = scene.keys.lock("f" * 64)
    litter = {"t": "token", "claims": "rl:{q}:claims:dead", "c": "1", "until": "1"}
    scene.redis.hset(name, mapping=litter)
    scene.redis.set("rl:lock:of another type", "x")
    assert counts(purge(scene, "--dry-run")) == (0, 1, 0)
    assert scene.redis.exists(name)
    assert counts(purge(scene)) == (0, 1, 0)
    assert not scene.redis.exists(name)
    store = Store(Address.parse(scene.url), scene.keys)
    assert store.run(locking.lock(scene.keys, "f" * 64, "mine", 1000, None)).verdict == "mine"
    store.close()


def test_many_results_go_in_batches(scene: Scene) -> None:
    with scene.redis.pipeline() as pipe:
        for number in range(350):
            pipe.hset(f"rl:idem:a[b]*:{number}", "v", "x")
            pipe.hset(f"rl:idem:ab:{number}", "v", "x")
        pipe.execute()
    assert counts(purge(scene, "--task", "a[b]*", "--results", "--yes")) == (0, 0, 350)
    assert counts(purge(scene)) == (0, 0, 350)


def test_reset_admission_is_admission_reset(scene: Scene) -> None:
    done = ask(scene, "reset-admission")
    assert (done.exit_code, done.stdout) == (
        0,
        "Reset the limits of the cluster and of every tenant: 0 counts.\n",
    )
