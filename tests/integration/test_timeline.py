"""The way of a task through a real fleet with real deaths in it, as `rl` tells it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from click.testing import CliRunner

from relier import Relier
from relier.cli.main import rl
from relier.store.embedded import EmbeddedServer
from support.wait import wait_for
from support.worker import Worker

APP = """
import os, time
from contextlib import suppress
from pathlib import Path
from celery import Celery
from relier import Relier, rl_task

app = Celery("way", broker=os.environ["WAY_URL"], backend=os.environ["WAY_URL"])
Relier(app, env="development", max_resurrections=1, heartbeat_ttl_s=1.5,
       graceful_shutdown_timeout_s=0)

@rl_task(name="hold", app=app)
def hold(gate):
    while not Path(gate).exists():
        time.sleep(0.05)
    return "held"

@rl_task(name="poison", app=app)
def poison():
    os.kill(os.getpid(), 9)
"""


class Road:
    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        (folder / "way_app.py").write_text(APP)
        self.app = Celery("sender", broker=server.url, backend=server.url, set_as_current=False)
        Relier(self.app, env="development")

    def worker(self, name: str) -> Worker:
        return Worker(
            "way_app",
            env={"WAY_URL": self.server.url},
            path=[self.folder],
            name=name,
            concurrency=1,
        )

    def send(self, name: str, *args: Any) -> str:
        return str(self.app.send_task(name, args).id)

    def rl(self, *arguments: str) -> str:
        done = CliRunner().invoke(rl, [*arguments, "--url", self.server.url])
        assert done.exit_code == 0, done.output
        return done.stdout

    def facts(self, *arguments: str) -> Any:
        return json.loads(self.rl(*arguments, "--json"))

    def until(self, task_id: str, state: str) -> Any:
        def there() -> Any:
            found = self.facts("tasks", "inspect", task_id)
            return found if found["state"] == state else None

        return wait_for(there, 60, lambda: self.rl("tasks", "inspect", task_id))

    def forget(self) -> None:
        """Let the streams be as short as on a very busy server."""
        with redis.Redis.from_url(self.server.url) as client:
            client.delete("rl:{celery}:events")


@pytest.fixture
def road(server: EmbeddedServer, tmp_path: Path) -> Iterator[Road]:
    made = Road(server, tmp_path)
    yield made
    made.app.close()


@pytest.mark.parametrize(
    ("how", "kind", "why"),
    [
        ("sigkill_tree", "requeued", "first@test dead (connection lost): back in its queue"),
        ("sigstop", "requeued", "first@test dead (silent for 1.5 s): back in its queue"),
        ("sigterm", "handed", "handed over by first@test (drain)"),
    ],
)
def test_a_task_that_went_from_one_worker_to_another(
    road: Road, how: str, kind: str, why: str
) -> None:
    gate = road.folder / "gate"
    with road.worker("first") as first:
        task_id = road.send("hold", str(gate))
        before = road.until(task_id, "running")
        with road.worker("second"):
            getattr(first, how)()

            def reclaimed() -> Any:
                found = road.facts("tasks", "inspect", task_id)
                return found if found["attempt"] == 2 else None

            running = wait_for(reclaimed, 60, lambda: road.rl("tasks", "inspect", task_id))
            gate.touch()
            ended = road.until(task_id, "ended")
            assert running["fence"] > before["fence"]
            events = ended["timeline"]
            assert [event["kind"] for event in events] == [
                *("accepted", "claimed", "started", kind, "claimed", "started", "ended")
            ]
            assert [event["worker_name"] for event in events[1:]] == [
                *("first@test", "first@test", "first@test"),
                *("second@test", "second@test", "second@test"),
            ]
            said = [line[28:] for line in _timeline(road.rl("tasks", "inspect", task_id))]
            assert said == [
                "accepted",
                "claimed by first@test",
                f"started in first@test (fence {before['fence']}, attempt 1)",
                why,
                "claimed by second@test",
                f"reclaimed by second@test (fence {running['fence']}, attempt 2)",
                "finished: SUCCESS",
            ]
            road.forget()
            said = [line[28:] for line in _timeline(road.rl("tasks", "inspect", task_id))]
            assert (said[0], said[-1]) == (why, "finished: SUCCESS")


def test_a_poison_task_says_of_what_its_processes_died(road: Road) -> None:
    with road.worker("first"):
        task_id = road.send("poison")
        road.until(task_id, "dead")
        road.forget()
        said = [line[28:] for line in _timeline(road.rl("dlq", "inspect", task_id))]
        assert [words for words in said if "died" in words] == [
            "its process in first@test died (signal 9): back in its queue",
            "its process in first@test died (signal 9): once too often, given up",
        ]
        assert said[-1].startswith("became a dead letter")
        road.rl("dlq", "release", task_id)
        found = road.until(task_id, "dead")
        kinds = [event["kind"] for event in found["timeline"]]
        assert kinds.count("released") == 1
        assert kinds.count("exhausted") == 2


def _timeline(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if re.match(r"\d\d:\d\d:\d\d", line)]


def test_logs_of_a_running_task_follow_it_through_a_death_to_its_end(road: Road) -> None:
    gate = road.folder / "gate"
    with road.worker("first") as first:
        task_id = road.send("hold", str(gate))
        road.until(task_id, "running")
        with road.worker("second"), _Terminal(road, "tasks", "logs", task_id, "--follow") as log:
            log.until("started in first@test")
            first.sigkill_tree()
            log.until("reclaimed by second@test")
            gate.touch()
            log.until("finished: SUCCESS")
            assert log.process.wait(30) == 0, "it ends by itself"
    said = [line[25:] for line in log.shown.splitlines()]
    assert [re.sub(r" \(fence.*", "", words) for words in said] == [
        "accepted",
        "claimed by first@test",
        "started in first@test",
        "first@test dead (connection lost): back in its queue",
        "claimed by second@test",
        "reclaimed by second@test",
        "finished: SUCCESS",
    ]
    lines = road.rl("tasks", "logs", task_id, "--json").splitlines()
    facts = [json.loads(line) for line in lines]
    assert [each["what"] for each in facts] == said
    assert (facts[3]["kind"], facts[3]["worker_name"]) == ("requeued", "first@test")
    followed = road.rl("tasks", "logs", task_id, "--follow")
    assert followed == road.rl("tasks", "logs", task_id), "it had ended before"


def test_logs_that_are_followed_end_with_ctrl_c(road: Road) -> None:
    task_id = road.send("hold", "never")
    with _Terminal(road, "tasks", "logs", task_id, "--follow") as log:
        log.until("accepted")
        log.process.send_signal(signal.SIGINT)
        assert log.process.wait(30) == 130
    assert "Traceback" not in log.shown


def test_the_beginning_of_an_id_is_enough_to_be_told_the_whole(road: Road) -> None:
    task_id = road.send("hold", "never")
    for command in ("logs", "inspect"):
        done = CliRunner().invoke(rl, ["tasks", command, task_id[:8], "--url", road.server.url])
        assert done.exit_code == 4
        assert f"did you mean {task_id}?" in done.stderr


class _Terminal:
    """A command in a terminal of its own."""

    def __init__(self, road: Road, *arguments: str, columns: int = 200) -> None:
        self._screen, terminal = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relier.cli", *arguments, "--url", road.server.url],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "NO_COLOR": "1"},
            start_new_session=True,
        )
        os.close(terminal)

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            while rest := os.read(self._screen, 65536):
                self.shown += rest.decode()
        os.close(self._screen)

    def text(self) -> str:
        return " ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown).split())

    def until(self, text: str) -> None:
        def there() -> bool:
            if select.select([self._screen], [], [], 0.05)[0]:
                with suppress(OSError):
                    self.shown += os.read(self._screen, 65536).decode()
            # A narrow terminal breaks lines between words.
            return text in self.text()

        wait_for(there, 60, lambda: self.text()[-900:])


def test_inflight_tells_of_the_last_recovery_in_forty_columns(road: Road) -> None:
    gate = road.folder / "gate"
    with road.worker("first") as first:
        task_id = road.send("hold", str(gate))
        road.until(task_id, "running")
        with road.worker("second"), _Terminal(road, "tasks", "inflight", "-f", columns=40) as view:
            view.until("1 task running, 1 worker idle, 0 lost")
            first.sigkill_tree()
            view.until("connection lost")
            gate.touch()
            road.until(task_id, "ended")
            view.until("0 tasks running, 1 worker idle, 0 lost")
            view.until("last recovery")
            view.process.send_signal(signal.SIGINT)
            assert view.process.wait(30) == 0
    assert "hold running " in view.text()
    found = road.facts("tasks", "inflight")
    assert found["last_recovery"]["task_id"] == task_id
    assert found["p95_ms"] > 0
    road.forget()
    last = road.facts("tasks", "inflight")["last_recovery"]
    assert last["reason"] == "first@test dead (connection lost)", "it outlives the stream"


@pytest.mark.parametrize("command", ["list", "inflight"])
def test_a_reader_that_had_enough_is_no_error(road: Road, command: str) -> None:
    for n in range(3000):
        road.send("hold", n)
    asked = [sys.executable, "-m", "relier.cli", "tasks", command, "--limit", "10000"]
    script = shlex.join([*asked, "--url", road.server.url]) + " | head -1; echo ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
