"""A fleet whose tasks have died in many ways, for the commands of dead letters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from click.testing import CliRunner, Result

from relier import Relier
from relier.cli.main import rl
from relier.store.embedded import EmbeddedServer
from support.journal import Journal
from support.wait import wait_for
from support.worker import Worker

SOON_S = 60.0
QUEUES = ("celery", "bills")


@dataclass
class Morgue:
    """A server, a worker, and what was sent to it.

    Args:
        sent: the ids of the tasks, by the name under which a test sent them.
    """

    server: EmbeddedServer
    worker: Worker
    app: Celery
    client: redis.Redis
    journal: Journal
    folder: Path
    sent: dict[str, str] = field(default_factory=dict)

    def send(self, name: str, *args: Any, queue: str = "bills", **kwargs: Any) -> str:
        return str(self.app.send_task(f"morgue.{name}", args, kwargs, queue=queue).id)

    def rl(self, *arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> Result:
        return CliRunner().invoke(
            rl, [*arguments, "--url", self.server.url], env=dict(env or {}), **options
        )

    def facts(self, *arguments: str, **options: Any) -> Any:
        done = self.rl(*arguments, "--json", **options)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        """Run a command as somebody else would: in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "relier.cli", *arguments, "--url", self.server.url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )

    def letters(self) -> set[str]:
        found: set[str] = set()
        for queue in QUEUES:
            found |= {each.decode() for each in self.client.zrange(f"rl:{{{queue}}}:dead", 0, -1)}
        return found

    def until_dead(self, *task_ids: str) -> None:
        wait_for(lambda: set(task_ids) <= self.letters(), SOON_S, lambda: f"dead: {self.letters()}")

    def until_result(self, task_id: str, state: str) -> Any:
        def ended() -> Any:
            raw: Any = self.client.get(f"celery-task-meta-{task_id}")
            meta = json.loads(raw) if raw else {}
            return meta if meta.get("status") == state else None

        return wait_for(ended, SOON_S)


@contextmanager
def open_morgue(
    server: EmbeddedServer, folder: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Morgue]:
    """Start a fleet of one worker in which everything dies."""
    journal = Journal(folder / "journal.tsv")
    app = Celery("sender", broker=server.url, backend=server.url, set_as_current=False)
    Relier(app, env="development", secret_key=(settings or {}).get("RELIER_SECRET_KEY"))
    env = {"BROKER": server.url, "MORGUE": str(folder), **journal.env, **(settings or {})}
    worker = Worker(
        "integration.apps.morgue",
        env=env,
        queues=QUEUES,
        options=("--without-mingle", "--without-gossip"),
        log_dir=folder,
    )
    with redis.Redis.from_url(server.url) as client, worker:
        yield Morgue(server, worker, app, client, journal, folder)
        assert worker.running, worker.log()[-3000:]


def assert_index_agrees(client: redis.Redis, queue: str) -> None:
    """Check that the groups of a queue's dead letters are what its letters say."""
    expected: dict[bytes, set[bytes]] = {}
    for letter_id in client.zrange(f"rl:{{{queue}}}:dead", 0, -1):
        found: Any = client.hget(f"rl:{{{queue}}}:dead:{letter_id.decode()}", "fp")
        expected.setdefault(found, set()).add(letter_id)
    counts = dict(client.zrange(f"rl:{{{queue}}}:groups", 0, -1, withscores=True))
    assert counts == {name: len(ids) for name, ids in expected.items()}
    names = {f"rl:{{{queue}}}:group:{name.decode()}".encode() for name in expected}
    assert set(client.keys(f"rl:{{{queue}}}:group:*")) == names
    for name, ids in expected.items():
        assert set(client.zrange(f"rl:{{{queue}}}:group:{name.decode()}", 0, -1)) == ids
