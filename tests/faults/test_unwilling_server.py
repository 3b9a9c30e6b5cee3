"""A server that answers, but takes no writes for a while: workers wait, say so once, and go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from faults.scene import Scene
from relier.store.embedded import EmbeddedServer
from support.servers import chosen_binary
from support.wait import wait_for
from support.worker import Worker

WAITS = "takes no writes now"
GOES_ON = "takes writes again"
KEYS_TO_LOAD = 600


class Trouble:
    """A way in which a server refuses writes, and its cure."""

    says = ""

    def __init__(self, server: EmbeddedServer, admin: redis.Redis) -> None:
        self._server = server
        self._redis = admin

    def begin(self) -> None:
        """Refuse writes from now on."""

    def end(self) -> None:
        """Take them again."""


class BrokenSnapshots(Trouble):
    """It could not save a snapshot."""

    says = "MISCONF"

    def begin(self) -> None:
        (self._server.data_dir / "dump.rdb").mkdir()
        self._redis.config_set("save", "3600 1000000")
        self._save("err")

    def end(self) -> None:
        (self._server.data_dir / "dump.rdb").rmdir()
        self._save("ok")

    def _save(self, status: str) -> None:
        self._redis.execute_command("BGSAVE")
        wait_for(lambda: self._redis.info()["rdb_last_bgsave_status"] == status, 10, status)


class LostReplicas(Trouble):
    """It has fewer replicas than it must have."""

    says = "NOREPLICAS"

    def begin(self) -> None:
        self._redis.config_set("min-replicas-to-write", 1)

    def end(self) -> None:
        self._redis.config_set("min-replicas-to-write", 0)


class Demoted(Trouble):
    """It is a replica of a master that is not there: the data stays as it is."""

    says = "read only replica"

    def begin(self) -> None:
        self._redis.execute_command("REPLICAOF", "127.0.0.1", "1")

    def end(self) -> None:
        self._redis.execute_command("REPLICAOF", "NO", "ONE")


TROUBLES = [BrokenSnapshots, LostReplicas, Demoted]


@pytest.fixture(params=TROUBLES)
def trouble(request: pytest.FixtureRequest, fresh_server: EmbeddedServer) -> Iterator[Trouble]:
    """Each trouble in turn, on the scene's own server."""
    with redis.Redis.from_url(fresh_server.url) as admin:
        yield request.param(fresh_server, admin)


def assert_said_once(worker: Worker, trouble: Trouble) -> None:
    said = [line for line in worker.log().splitlines() if WAITS in line]
    assert len(said) == 1, worker.log()
    assert trouble.says in said[0]
    assert "Frequent restarts" not in worker.log()
    assert "Traceback" not in worker.log()


def test_a_worker_that_starts_waits_for_its_server(own_scene: Scene, trouble: Trouble) -> None:
    scene = own_scene
    for n in range(3):
        scene.push("note", n)
    trouble.begin()
    worker = scene.worker("only", wait_ready=False)
    scene.wait(lambda: WAITS in worker.log(), "word of it")
    trouble.end()
    scene.settle()
    assert [scene.journal.count("ran", n) for n in range(3)] == [1] * 3
    assert GOES_ON in worker.log()
    assert_said_once(worker, trouble)


def test_a_worker_that_runs_waits_for_its_server(own_scene: Scene, trouble: Trouble) -> None:
    scene = own_scene
    env = {"RELIER_HEARTBEAT_TTL": "30", "RELIER_REDIS_SOCKET_TIMEOUT": "1"}
    worker = scene.worker("only", env=env)
    held = scene.push("hold", "a")
    scene.began("a")
    scene.wait(lambda: _waits_on_a_bell(scene), "the worker to wait")
    trouble.begin()
    scene.let("a")
    scene.wait_journal("passed", "a")
    scene.wait(lambda: "waits for Redis to finish" in worker.log(), "its process to notice")
    scene.wait(lambda: WAITS in worker.log(), "the worker to notice")
    trouble.end()
    scene.push("note", "after")
    scene.settle()
    assert scene.journal.count("began", "a") == scene.journal.count("ran", "after") == 1
    assert scene.returns(held) == (0, 0)
    assert scene.state(held) == "SUCCESS"
    assert len(scene.members()) == 1
    assert GOES_ON in worker.log()
    assert_said_once(worker, trouble)


def test_a_worker_that_waits_can_be_stopped(own_scene: Scene, fresh_server: EmbeddedServer) -> None:
    LostReplicas(fresh_server, own_scene.redis).begin()
    worker = own_scene.worker("only", wait_ready=False)
    own_scene.wait(lambda: WAITS in worker.log(), "word of it")
    worker.sigterm()
    assert worker.wait() == 0


def test_a_worker_starts_on_a_full_server_and_empties_it(own_scene: Scene) -> None:
    scene = own_scene
    for n in range(20):
        scene.push("note", n)
    scene.redis.config_set("maxmemory", "1mb")
    worker = scene.worker("only")
    scene.settle()
    assert [scene.journal.count("ran", n) for n in range(20)] == [1] * 20
    assert "Traceback" not in worker.log()
    assert "Connection to broker lost" not in worker.log()


class SlowToLoad(EmbeddedServer):
    """A server that takes seconds to read its data, and answers meanwhile."""

    def _command(self, binary: Path, port: int) -> list[str]:
        slow = ("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
        return [*super()._command(binary, port), *slow]


def test_a_worker_waits_for_a_server_that_loads_its_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with EmbeddedServer(data, binary=chosen_binary()) as quick, ExitStack() as stack:
        scene = Scene(quick.url, tmp_path, stack)
        kept = scene.push("note", "kept")
        port = quick.port
        for n in range(KEYS_TO_LOAD):
            scene.redis.set(f"ballast:{n}", "x" * 2048)
        scene.redis.execute_command("BGREWRITEAOF")
        wait_for(lambda: _has_rewritten(scene.redis), 30, "the log to be rewritten")
    slow = SlowToLoad(data, binary=chosen_binary(), port=port)
    with slow, ExitStack() as stack:
        scene = Scene(slow.url, tmp_path, stack)
        scene.accepted.append(kept)
        worker = scene.worker("only", wait_ready=False)
        wait_for(lambda: WAITS in worker.log(), 30, worker.log)
        wait_for(lambda: not scene.redis.info("persistence")["loading"], 30, "all to be loaded")
        scene.settle()
        assert scene.journal.count("ran", "kept") == 1
        assert GOES_ON in worker.log()


def _has_rewritten(client: redis.Redis) -> bool:
    found = client.info("persistence")
    return not (found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])


def _waits_on_a_bell(scene: Scene) -> bool:
    return any(client["cmd"] == "bzpopmin" for client in scene.redis.client_list())
