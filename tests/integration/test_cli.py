"""The commands against a real server, with real workers and real tasks behind what they say."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from click.testing import CliRunner, Result

from relier import Relier
from relier.cli.main import rl
from relier.store import claiming
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from support import redis6
from support.redis6 import Redis6
from support.servers import new_server
from support.wait import wait_for
from support.worker import Worker

APP = """
import os, time
from pathlib import Path
from celery import Celery
from relier import Relier, rl_task

app = Celery("clerk", broker=os.environ["CLERK_URL"], backend=os.environ["CLERK_URL"])
Relier(app, env="development", max_resurrections=0)

@rl_task(name="hold", app=app)
def hold(gate):
    while not Path(gate).exists():
        time.sleep(0.05)

@rl_task(name="add", app=app)
def add(x, y):
    return x + y

@rl_task(name="poison", app=app)
def poison(antidote):
    if not Path(antidote).exists():
        os.kill(os.getpid(), 9)
    return "survived"
"""


@dataclass
class Clerk:
    """A fleet with something in every place.

    Args:
        running: two tasks that hold until the gate opens.
        queued: tasks behind them, oldest first; some are claimed in advance.
    """

    server: EmbeddedServer
    worker: Worker
    app: Celery
    folder: Path
    added: str = ""
    dead: str = ""
    scheduled: str = ""
    running: tuple[str, ...] = ()
    queued: tuple[str, ...] = ()

    def send(self, name: str, *args: Any, **options: Any) -> str:
        return str(self.app.send_task(name, args, **options).id)

    def rl(self, *arguments: str) -> Result:
        return CliRunner().invoke(rl, [*arguments, "--url", self.server.url])

    def facts(self, *arguments: str) -> Any:
        done = self.rl(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def until(self, state: str, count: int) -> None:
        wait_for(
            lambda: self.facts("tasks", "list")["totals"][state] == count,
            30,
            lambda: self.rl("tasks", "list").output,
        )


@pytest.fixture(scope="module")
def clerk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clerk]:
    folder = tmp_path_factory.mktemp("clerk")
    (folder / "clerk_app.py").write_text(APP)
    with new_server() as server:
        app = Celery("sender", broker=server.url, backend=server.url, set_as_current=False)
        Relier(app, env="development")
        env = {"CLERK_URL": server.url}
        with Worker("clerk_app", env=env, path=[folder], name="clerk") as worker:
            made = Clerk(server, worker, app, folder)
            made.added = made.send("add", 2, 3)
            made.dead = made.send("poison", str(folder / "antidote"))
            with redis.Redis.from_url(server.url) as client:
                client.lpush("celery", "no message at all")
            made.until("dead", 2)
            gate = str(folder / "gate")
            made.running = tuple(made.send("hold", gate) for _ in range(2))
            made.until("running", 2)
            made.scheduled = made.send("add", 1, 1, countdown=3600)
            made.queued = tuple(made.send("add", n, n) for n in range(20))
            yield made
            Path(gate).touch()


def test_doctor_finds_a_sound_server(clerk: Clerk) -> None:
    found = clerk.facts("doctor")
    assert found["healthy"]
    status = {check["name"]: check["status"] for check in found["checks"]}
    assert {name for name, each in status.items() if each != "ok"} == {"signatures"}
    assert {"reachable", "version", "persistence", "eviction", "memory", "scripts"} <= set(status)
    workers = next(check for check in found["checks"] if check["name"] == "workers")
    assert "clerk@test" in workers["found"]


@pytest.mark.parametrize(("killed_after", "status"), [("10", "warning"), ("30", "ok")])
def test_doctor_compares_the_time_to_stop_with_the_platforms(
    clerk: Clerk, killed_after: str, status: str
) -> None:
    env = {"RELIER_TERMINATION_GRACE_PERIOD": killed_after}
    done = CliRunner().invoke(rl, ["doctor", "--json", "--url", clerk.server.url], env=env)
    assert done.exit_code == 0, "a warning is no failure"
    [check] = [each for each in json.loads(done.stdout)["checks"] if each["name"] == "shutdown"]
    assert check["status"] == status
    assert status == "ok" or "terminationGracePeriodSeconds" in check["fix"]


def test_doctor_fails_on_a_server_that_may_lose_tasks(fresh_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(fresh_server.url) as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
    done = CliRunner().invoke(rl, ["doctor", "--url", fresh_server.url])
    assert done.exit_code == 1
    assert "CONFIG SET appendonly yes" in done.stdout
    assert "CONFIG SET maxmemory-policy noeviction" in done.stdout
    assert "rl worker start" in done.stdout


def test_doctor_names_the_one_thing_that_is_wrong(fresh_server: EmbeddedServer) -> None:
    sound = {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    wrong = {"appendonly": "no", "maxmemory-policy": "volatile-ttl"}
    checks = {"appendonly": "persistence", "maxmemory-policy": "eviction"}
    with redis.Redis.from_url(fresh_server.url) as client:
        for parameter, value in wrong.items():
            client.config_set(parameter, value)
            done = CliRunner().invoke(rl, ["doctor", "--json", "--url", fresh_server.url])
            client.config_set(parameter, sound[parameter])
            assert done.exit_code == 1
            failed = [c for c in json.loads(done.stdout)["checks"] if c["status"] == "failure"]
            assert [check["name"] for check in failed] == [checks[parameter]]
            assert f"CONFIG SET {parameter} {sound[parameter]}" in failed[0]["fix"]


def test_a_wrong_password_is_one_line_without_it(fresh_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(fresh_server.url) as client:
        client.config_set("requirepass", "right")
    for userinfo in ("", ":wrong@", "nobody:wrong@"):
        url = fresh_server.url.replace("redis://", f"redis://{userinfo}")
        for command in (["doctor"], ["tasks", "list"], ["run-resurrector"]):
            done = CliRunner().invoke(rl, [*command, "--url", url])
            assert done.exit_code != 0, done.output
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            assert "Check the user and password" in done.stderr
            assert "wrong@" not in done.output


def test_a_redis_that_is_too_old_is_one_line() -> None:
    with Redis6() as old:
        for command in (["doctor"], ["run-resurrector"]):
            done = CliRunner().invoke(rl, [*command, "--url", old.url])
            assert done.exit_code == 1
            assert done.stdout == ""
            assert done.stderr == (
                f"rl: the server is Redis {redis6.VERSION}; relier needs Redis 7.0 or later, "
                "or Valkey. Upgrade the server.\n"
            )


def test_list_shows_every_place(clerk: Clerk) -> None:
    found = clerk.facts("tasks", "list", "--limit", "100")
    by_state: dict[str, set[str]] = {}
    for row in found["rows"]:
        by_state.setdefault(row["state"], set()).add(row["task_id"])
    assert by_state["running"] == set(clerk.running)
    assert by_state["claimed"] | by_state["queued"] == set(clerk.queued)
    assert by_state["scheduled"] == {clerk.scheduled}
    assert clerk.dead in by_state["dead"]
    assert clerk.added in by_state["ended"]
    assert found["totals"]["queued"] == len(by_state["queued"])


def test_list_is_bounded_and_says_so(clerk: Clerk) -> None:
    done = clerk.rl("tasks", "list", "--state", "queued", "--limit", "3")
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("queued")]) == 3
    assert lines[-1] == "Cut at --limit 3."
    assert all(line == line.rstrip() for line in lines)


def test_inflight_shows_who_has_what(clerk: Clerk) -> None:
    found = clerk.facts("tasks", "inflight", "--worker", "clerk@test")
    running = [task for task in found["tasks"] if task["state"] == "running"]
    assert {task["task_id"] for task in running} == set(clerk.running)
    assert {(task["worker"], task["name"], task["attempt"]) for task in running} == {
        ("clerk@test", "hold", 1)
    }
    assert found["workers"][0]["pid"] == clerk.worker.pid
    assert clerk.rl("tasks", "inflight", "--worker", "nobody").exit_code == 4
    shown = clerk.rl("tasks", "inflight").stdout
    assert "2 tasks running, 0 workers idle, 0 lost" in shown
    assert shown.startswith("relier  ")
    assert " queued  p95 " in shown.splitlines()[0]


def test_follow_is_a_live_view_that_ctrl_c_ends(clerk: Clerk) -> None:
    """Drive it in a terminal of its own, as a person would."""
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "relier.cli", "tasks", "inflight", "--follow"]
    view = subprocess.Popen(
        [*command, "--url", clerk.server.url],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"},
        start_new_session=True,
    )
    os.close(terminal)
    shown = b""
    try:
        deadline = time.monotonic() + 30
        while shown.count(b"clerk@test") < 6 and time.monotonic() < deadline:
            shown += os.read(screen, 65536)
        view.send_signal(signal.SIGINT)
        with suppress(OSError):  # EIO: the view has ended
            while rest := os.read(screen, 65536):  # unread, it would fill the terminal and wait
                shown += rest
        assert view.wait(10) == 0
    finally:
        view.kill()
        view.wait()
        os.close(screen)
    assert shown.count(b"clerk@test") >= 6
    assert b"\x1b[?1049h" in shown  # the alternate screen: the shell's own lines come back
    assert b"hold" in shown


@pytest.mark.parametrize(
    ("which", "state", "where"),
    [
        ("running", "running", "running in clerk@test"),
        ("queued", "queued", "in queue celery, "),
        ("scheduled", "scheduled", "in the schedule of celery"),
        ("dead", "dead", "in the dead letters of celery"),
        ("added", "ended", "ended"),
    ],
)
def test_inspect_finds_a_task_wherever_it_is(
    clerk: Clerk, which: str, state: str, where: str
) -> None:
    chosen = getattr(clerk, which)
    task_id = chosen if isinstance(chosen, str) else chosen[-1]
    found = clerk.facts("tasks", "inspect", task_id)
    assert (found["task_id"], found["state"]) == (task_id, state)
    assert found["where"].startswith(where)
    assert found["timeline"][0]["kind"] in ("accepted", "scheduled")
    assert found["timeline"][0]["at_ms"] <= found["now_ms"]


def test_inspect_tells_the_result(clerk: Clerk) -> None:
    found = clerk.facts("tasks", "inspect", clerk.added)
    assert (found["name"], found["result"], found["result_value"]) == ("add", "SUCCESS", "5")
    kinds = [event["kind"] for event in found["timeline"]]
    assert kinds == ["accepted", "claimed", "started", "ended"]
    assert "clerk@test" in clerk.rl("tasks", "inspect", clerk.added).stdout


@pytest.mark.parametrize(
    "command", [["tasks", "inspect"], ["dlq", "inspect"], ["dlq", "release"]], ids=" ".join
)
def test_an_unknown_id_is_status_4_with_what_to_try(clerk: Clerk, command: list[str]) -> None:
    done = clerk.rl(*command, "no-such-id")
    assert done.exit_code == 4
    assert "list`" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_fence_is_shown_while_a_task_runs_and_after_it(clerk: Clerk) -> None:
    running, ended = (clerk.facts("tasks", "inspect", i) for i in (clerk.running[0], clerk.added))
    assert running["fence"] > ended["fence"] > 0


def test_a_dead_letter_is_shown_with_its_history(clerk: Clerk) -> None:
    found = clerk.facts("dlq", "inspect", clerk.dead)
    assert (found["name"], found["reason"]) == ("poison", "max_resurrections")
    assert [event["kind"] for event in found["timeline"]][-3:] == ["exhausted", "claimed", "dead"]
    shown = clerk.rl("dlq", "inspect", clerk.dead).stdout
    assert "died (signal 9): once too often, given up" in shown
    assert f"rl dlq release {clerk.dead}" in shown


def test_an_unreadable_letter_is_released_only_as_it_came(clerk: Clerk) -> None:
    listed = clerk.facts("dlq", "list")["rows"]
    raw_id = next(r["letter_id"] for r in listed if r["letter_id"].startswith("raw-"))
    refused = clerk.rl("dlq", "release", raw_id)
    assert refused.exit_code == 1
    assert "--raw" in refused.stderr
    assert clerk.facts("dlq", "release", raw_id, "--raw")["released"]
    with redis.Redis.from_url(clerk.server.url) as client:
        assert client.lpos("celery", "no message at all") is not None
        client.lrem("celery", 0, "no message at all")


def test_a_released_letter_lives_again_under_a_new_token(clerk: Clerk) -> None:
    """Last: it opens the gate."""
    (clerk.folder / "antidote").touch()
    released = clerk.facts("dlq", "release", clerk.dead)
    assert (released["released"], released["name"]) == (True, "poison")
    assert clerk.rl("dlq", "release", clerk.dead).exit_code == 4
    (clerk.folder / "gate").touch()
    found = wait_for(lambda: _ended(clerk, clerk.dead), 30)
    assert (found["result"], found["result_value"]) == ("SUCCESS", '"survived"')
    kinds = [event["kind"] for event in found["timeline"]]
    assert kinds[-4:] == ["released", "claimed", "started", "ended"]
    assert kinds[:2] == ["exhausted", "dead"], "the letter brought its history back"
    assert found["blame"] == 0
    wait_for(lambda: _ended(clerk, clerk.queued[-1]), 30)


def _ended(clerk: Clerk, task_id: str) -> Any:
    found = clerk.facts("tasks", "inspect", task_id)
    return found if found["state"] == "ended" else None


def test_events_of_one_millisecond_keep_their_order(
    server: EmbeddedServer, client: redis.Redis
) -> None:
    client.sadd("rl:queues", "q")
    kinds = ["accepted", "started", "committed", "ended"]
    for sequence, kind in enumerate(kinds):
        fields = {"k": kind, "i": "one", "w": "", "c": "", "r": ""}
        client.xadd("rl:{q}:events", fields, id=f"1000-{sequence}")
    asked = ["tasks", "inspect", "one", "--json", "--url", server.url]
    found = json.loads(CliRunner().invoke(rl, asked).stdout)
    assert [event["kind"] for event in found["timeline"]] == kinds


def test_a_key_prefix_is_followed(redis_url: str) -> None:
    app = Celery("prefixed", broker=redis_url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": "mine:"}
    Relier(app, env="development")
    task_id = app.send_task("add", (1, 2)).id
    asked = ["tasks", "inspect", task_id, "--url", redis_url]
    assert CliRunner().invoke(rl, asked).exit_code == 4
    found = CliRunner().invoke(rl, [*asked, "--prefix", "mine:", "--json"])
    assert json.loads(found.stdout)["state"] == "queued"


@pytest.mark.slow
def test_worker_start_runs_celery_and_passes_the_rest_on(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "clerk_app.py").write_text(APP)
    command = [sys.executable, "-m", "relier.cli", "worker", "start", "-A", "clerk_app"]
    log = tmp_path / "log"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [*command, "--url", server.url, "--pool", "solo", "-Q", "errands"],
            stdout=out,
            stderr=out,
            env={**os.environ, "CLERK_URL": "redis://127.0.0.1:1/0", "PYTHONPATH": path},
        )
    try:
        asked = ["tasks", "inflight", "--json", "--url", server.url]

        def members() -> Any:
            return json.loads(CliRunner().invoke(rl, asked).stdout)["workers"]

        (member,) = wait_for(members, 60, log.read_text)
        wait_for(lambda: members()[0]["queues"] == ["errands"], 30)
        assert (member["pid"], member["pool"]) == (worker.pid, "solo")
        assert member["name"].startswith("worker-")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
        assert members() == []
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_resurrector_of_its_own_brings_tasks_back(
    server: EmbeddedServer, tmp_path: Path, signum: signal.Signals
) -> None:
    (tmp_path / "clerk_app.py").write_text(APP)
    app = Celery("sender", broker=server.url, backend=server.url, set_as_current=False)
    Relier(app, env="development")
    task_id = app.send_task("hold", (str(tmp_path / "gate"),)).id

    def task() -> Any:
        asked = ["tasks", "inspect", task_id, "--json", "--url", server.url]
        return json.loads(CliRunner().invoke(rl, asked).stdout)

    with Worker(
        "clerk_app", env={"CLERK_URL": server.url}, path=[tmp_path], concurrency=1
    ) as dying:
        wait_for(lambda: task()["state"] == "running", 30)
        dying.sigkill_tree()
    with subprocess.Popen(
        [sys.executable, "-m", "relier.cli", "run-resurrector", "--url", server.url, "--json"],
        stderr=subprocess.PIPE,
        text=True,
    ) as resurrector:
        try:
            wait_for(lambda: task()["timeline"][-1]["kind"] in ("requeued", "exhausted"), 30)
        finally:
            resurrector.send_signal(signum)
        said = [
            json.loads(line)["message"]
            for line in resurrector.communicate(timeout=20)[1].splitlines()
        ]
    assert resurrector.returncode == 0
    assert said[0].startswith("watching")
    assert any("1 tasks resurrected" in line for line in said), said
    assert said[-1] == "stopped"


@pytest.mark.slow
def test_the_resurrector_outlasts_its_redis(fresh_server: EmbeddedServer, tmp_path: Path) -> None:
    server, log = fresh_server, tmp_path / "resurrector.log"
    store, keys = Store(Address.parse(server.url), Keys()), Keys()

    def orphan(worker: str) -> None:
        store.redis.lpush("orphans", f"of {worker}")
        store.run(claiming.hello(keys, worker, {"epoch": 1, "hb": 500}))
        store.run_once(claiming.claim(keys, worker, 1, ["orphans"], 1, [""]))

    orphan("one")
    server.kill()
    command = ["run-resurrector", "--url", server.url, "--wait", "30"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "relier.cli", *command], stderr=stderr
        ) as resurrector,
    ):
        try:
            wait_for(lambda: "waiting for Redis" in log.read_text(), 30)
            server.start()
            wait_for(lambda: store.redis.lrange("orphans", 0, -1) == [b"of one"], 30)
            server.kill()
            wait_for(lambda: "cannot watch the workers" in log.read_text(), 30)
            server.start()
            store.redis.delete("orphans")
            orphan("two")
            wait_for(lambda: store.redis.lrange("orphans", 0, -1) == [b"of two"], 30)
        finally:
            resurrector.terminate()
    store.close()
    assert resurrector.returncode == 0
    assert "answers again" in log.read_text()
    assert "Traceback" not in log.read_text()
