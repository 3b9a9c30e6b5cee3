"""The doctor beside real servers that are sick in one way at a time."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chord
from click.testing import CliRunner, Result

from relier import Relier
from relier.cli.main import rl
from relier.errors import RedisPermissionError
from relier.store import claiming
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from support.servers import new_server
from support.wait import wait_for
from support.worker import Worker

APP = """
import os
from celery import Celery
from relier import Relier, rl_task

print("what a module says is no answer")
app = Celery("ward", broker=os.environ["WARD_URL"], backend=os.environ["WARD_URL"])
Relier(app)

@rl_task(name="add", app=app)
def add(x, y):
    return x + y

@rl_task(name="total", app=app, idempotent=True)
def total(numbers):
    return sum(numbers)

@app.task(name="plain")
def plain():
    pass
"""


def doctor(url: str, *arguments: str, **env: str) -> Result:
    return CliRunner().invoke(rl, ["doctor", "--url", url, *arguments], env=env)


def checks(url: str, *arguments: str, **env: str) -> dict[str, Any]:
    done = doctor(url, "--json", *arguments, **env)
    found = json.loads(done.stdout)
    assert found["healthy"] is (done.exit_code == 0), done.output
    return {check["name"]: check for check in found["checks"]}


def as_user(server: EmbeddedServer, name: str, *rules: str) -> str:
    """Make a user, and return the URL with which it comes."""
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", name, "reset", "on", ">pw", *rules)
    return server.url.replace("redis://", f"redis://{name}:pw@")


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an app in it, from which commands are run."""
    (tmp_path / "ward_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def replica(fresh_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A read-only replica of `fresh_server`, in step with it."""
    with new_server() as copy, redis.Redis.from_url(copy.url) as client:
        client.replicaof("127.0.0.1", str(fresh_server.port))
        wait_for(lambda: client.info("replication")["master_link_status"] == "up", 30)
        yield copy


def test_the_line_it_prints_is_enough_for_everything(
    fresh_server: EmbeddedServer, ward: Path
) -> None:
    """A user who may do nothing, then the line; and not one command is refused from there on."""
    url = as_user(fresh_server, "ward")
    refused = checks(url)
    failed = {name for name, check in refused.items() if check["status"] == "failure"}
    assert failed == {"rights", "scripts"}
    line = refused["rights"]["fix"].partition("ACL SETUSER USER")[2].partition(" (and")[0]
    with redis.Redis.from_url(fresh_server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "ward", *shlex.split(line))
        admin.execute_command("ACL", "LOG", "RESET")
        assert checks(url)["rights"]["status"] == "ok"
        with Worker("ward_app", env={"WARD_URL": url}, path=[ward]):
            app = Celery("sender", broker=url, backend=url, set_as_current=False)
            Relier(app)
            parts = [app.signature("add", (n, n), countdown=n % 2) for n in range(4)]
            assert chord(parts, app=app)(app.signature("total")).get(timeout=30) == 12
            assert app.control.inspect(timeout=5).ping()
            for command in (["tasks", "list"], ["tasks", "inflight"], ["worker", "drain"]):
                done = CliRunner().invoke(rl, [*command, "--url", url])
                assert done.exit_code == 0, done.output
        missed = {entry[b"object"].decode() for entry in admin.execute_command("ACL", "LOG")}
        # redis-py says who it is, and goes on where it may not; Redis 7.0 knows no such command.
        assert missed <= {"client|setinfo"}


def test_a_worker_without_its_rights_does_not_begin(
    fresh_server: EmbeddedServer, ward: Path
) -> None:
    url = as_user(fresh_server, "half", "~*", "&*", "+@all", "-xadd")
    assert checks(url)["rights"]["fix"].count("ACL SETUSER half +xadd (and") == 1
    worker = Worker("ward_app", env={"WARD_URL": url}, path=[ward])
    try:
        worker.start(wait_ready=False)
        wait_for(lambda: not worker.running, 60, worker.log)
        assert worker.returncode
        assert "ACL SETUSER half +xadd" in worker.log()
    finally:
        worker.cleanup()


def test_a_user_without_rights_gets_one_line(fresh_server: EmbeddedServer) -> None:
    url = as_user(fresh_server, "guest", "+ping")
    for command in (
        ["tasks", "list"],
        ["dlq", "list"],
        ["admission", "reset"],
        ["worker", "drain"],
    ):
        done = CliRunner().invoke(rl, [*command, "--url", url])
        assert done.exit_code == 1, done.output
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "`rl doctor` prints the line" in done.stderr
    app = Celery("sender", broker=url, set_as_current=False)
    Relier(app)
    with pytest.raises(RedisPermissionError, match="rl doctor"):
        app.send_task("add", (1, 2))


def test_keys_that_are_not_granted_are_told_from_commands(fresh_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(fresh_server.url) as admin:
        admin.sadd("rl:queues", "my own*")
    url = as_user(fresh_server, "narrow", "~rl:*", "~_kombu*", "~*.pidbox*", "&*", "+@all")
    found = checks(url)["rights"]
    assert r'ACL SETUSER narrow ~celery-task* "~my own\\**" (and' in found["fix"]


def test_a_server_that_forbids_config_is_asked_otherwise(fresh_server: EmbeddedServer) -> None:
    url = as_user(fresh_server, "hosted", "~*", "&*", "+@all", "-config", "-client|list")
    found = checks(url)
    assert found["rights"]["status"] == "ok"
    assert found["persistence"]["found"] == "appendonly is 'yes'"
    assert found["eviction"]["found"] == "maxmemory-policy is 'noeviction'"
    assert found["fsync"]["status"] == "unknown"
    assert found["death notice"]["status"] == "warning"
    with redis.Redis.from_url(fresh_server.url) as admin:
        admin.config_set("appendonly", "no")
    assert checks(url)["persistence"]["status"] == "failure"


def test_workers_whose_connections_nobody_sees_are_named(
    fresh_server: EmbeddedServer, ward: Path
) -> None:
    url = as_user(fresh_server, "blind", "~*", "&*", "+@all", "-client|list")
    with Worker("ward_app", env={"WARD_URL": url}, path=[ward], name="mole") as worker:
        wait_for(lambda: "mole@test" in checks(fresh_server.url)["workers"]["found"], 30)
        wait_for(lambda: "mole" in checks(fresh_server.url)["death notice"]["found"], 30)
        assert worker.running


def test_a_replica_is_no_place_to_work(
    fresh_server: EmbeddedServer, replica: EmbeddedServer, ward: Path
) -> None:
    role = checks(replica.url)["role"]
    assert role["status"] == "failure"
    assert f"127.0.0.1:{fresh_server.port}" in role["fix"]
    assert checks(fresh_server.url)["replicas"]["found"] == "1 in step"
    listed = CliRunner().invoke(rl, ["tasks", "list", "--url", replica.url])
    assert listed.exit_code == 0, "reading needs no master"
    done = CliRunner().invoke(
        rl,
        ["admission", "reset", "--url", replica.url],
        env={"RELIER_REDIS_SOCKET_TIMEOUT": "0.5"},
    )
    assert (done.exit_code, done.stdout) == (3, "")
    assert "is a replica and takes no writes" in done.stderr


def test_orphaned_claims_are_found_and_its_fix_brings_them_back(
    fresh_server: EmbeddedServer,
) -> None:
    keys = Keys()
    store = Store(Address.parse(fresh_server.url), keys)
    store.redis.lpush("errands", "one")
    store.redis.sadd(keys.queues, "errands")
    store.run(claiming.hello(keys, "lostone", {"epoch": 1, "hb": 500}))
    store.run(claiming.claim(keys, "lostone", 1, ["errands"], 1, [""]))
    assert checks(fresh_server.url)["orphaned claims"]["status"] == "ok"
    store.redis.delete(keys.worker("lostone"), keys.workers)
    found = checks(fresh_server.url)["orphaned claims"]
    assert found["status"] == "warning"
    assert "1 of errands held by lostone" in found["found"]
    mend = found["fix"].split("`")[1].split()[1:]
    done = CliRunner().invoke(rl, [*mend, "--url", fresh_server.url])
    assert done.exit_code == 0, done.output
    assert store.redis.lrange("errands", 0, -1) == [b"one"]
    assert checks(fresh_server.url)["orphaned claims"]["status"] == "ok"
    store.close()


def test_what_nobody_takes_is_named(server: EmbeddedServer, client: redis.Redis) -> None:
    keys = Keys()
    client.sadd(keys.queues, "lonely", "held", "late")
    client.lpush("lonely", "one")
    client.lpush("held", "one")
    client.set(keys.paused("held"), "1")
    client.zadd(keys.scheduled("late"), {"|one": 1000.0})
    client.hset(keys.worker("w"), mapping={"epoch": 1, "queues": "held,late"})
    client.sadd(keys.workers, "w")
    done = doctor(server.url, "--json")
    found = [c["found"] for c in json.loads(done.stdout)["checks"] if c["name"] == "backlog"]
    assert done.exit_code == 0
    assert [each.partition(":")[0] for each in found[:1]] == ["held is paused"]
    assert found[1].startswith("1 of late are overdue")
    assert found[2] == "no worker takes from lonely: 1 wait, 0 more are overdue"


def test_warnings_fail_only_when_asked(fresh_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(fresh_server.url) as admin:
        admin.config_set("appendfsync", "no")
    assert checks(fresh_server.url)["fsync"]["status"] == "warning"
    assert doctor(fresh_server.url).exit_code == 0
    assert doctor(fresh_server.url, "--strict").exit_code == 1


def test_somebody_elses_database_is_told_from_an_empty_one(
    server: EmbeddedServer, client: redis.Redis
) -> None:
    assert checks(server.url)["data"]["status"] == "ok"
    client.set("somebody", "else's")
    found = checks(server.url, "--prefix", "mine:")["data"]
    assert (found["status"], "1 other keys" in found["found"]) == ("warning", True)


@pytest.mark.parametrize(
    ("env", "status"),
    [
        ({}, "warning"),
        ({"RELIER_ENV": "development"}, "ok"),
        ({"RELIER_SECRET_KEY": "0123456789abcdef"}, "ok"),
    ],
)
def test_production_should_sign(server: EmbeddedServer, env: dict[str, str], status: str) -> None:
    assert checks(server.url, **env)["signatures"]["status"] == status


def test_an_app_is_looked_at_on_its_own_broker(server: EmbeddedServer, ward: Path) -> None:
    env = {**os.environ, "WARD_URL": server.url, "RELIER_REDIS_URL": ""}
    command = [sys.executable, "-m", "relier.cli", "doctor", "--json", "-A"]
    done = subprocess.run(
        [*command, "ward_app"], capture_output=True, check=False, text=True, env=env
    )
    found = json.loads(done.stdout)
    assert (done.returncode, found["server"]) == (0, server.url)
    assert "what a module says" in done.stderr
    [plain] = [each for each in found["checks"] if each["name"] == "unprotected tasks"]
    assert "plain" in plain["found"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "there is no module 'broken'"),
        ("import nosuchmodule", "there is no module 'nosuchmodule'"),
        ("x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "cannot load the app 'broken'"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_one_line(
    server: EmbeddedServer, ward: Path, source: str | None, said: str
) -> None:
    if source is not None:
        (ward / "broken.py").write_text(source)
    command = [sys.executable, "-m", "relier.cli", "doctor", "-A", "broken", "--url", server.url]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
