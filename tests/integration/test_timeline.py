"""The way of a task through a real fleet with real deaths in it, as `rl` tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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
