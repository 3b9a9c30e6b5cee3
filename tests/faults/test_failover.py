"""The server changes its role under a worker, as in a failover: the worker goes on."""

from __future__ import annotations

from faults.scene import Scene


def test_a_worker_outlives_a_master_that_becomes_a_replica_for_a_while(
    own_scene: Scene,
) -> None:
    scene = own_scene
    env = {"RELIER_HEARTBEAT_TTL": "30", "RELIER_REDIS_SOCKET_TIMEOUT": "1"}
    worker = scene.worker("only", env=env)
    held = scene.push("hold", "a")
    scene.began("a")
    scene.wait(lambda: _waits_on_a_bell(scene), "the worker to wait")
    # No such master is there: the data stays as it is.
    scene.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    scene.let("a")
    scene.wait_journal("passed", "a")
    scene.wait(lambda: "waits for Redis to finish" in worker.log(), "the process to notice")
    lost = "Connection to broker lost"
    scene.wait(lambda: worker.log().count(lost) > 1, "the worker to meet the replica again")
    scene.redis.execute_command("REPLICAOF", "NO", "ONE")
    scene.push("note", "after")
    scene.settle()
    assert scene.journal.count("began", "a") == 1
    assert scene.returns(held) == (0, 0)
    assert worker.running
    assert len(scene.members()) == 1


def _waits_on_a_bell(scene: Scene) -> bool:
    return any(client["cmd"] == "bzpopmin" for client in scene.redis.client_list())
