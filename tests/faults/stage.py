"""A stage for lives that are cut short: a server, a proxy to it, a healthy worker, and victims.

The victim speaks through the proxy; a rule kills it as a chosen command passes. Whoever is left
finishes, and the laws are read from Redis and from what the tasks themselves wrote down.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import redis

from faults.lives import CALM, VICTIM, Life
from faults.sampling import sample
from faults.steps_app import make_app
from relier.store.embedded import EmbeddedServer
from support.journal import Journal
from support.proxy import Command, Cut, Proxy
from support.settled import leftovers
from support.wait import wait_for
from support.worker import TESTS

READY_DEADLINE_S = 30.0
FINISH_DEADLINE_S = 40.0
LIFE_DEADLINE_S = 30.0

# What the main process sends on its own account, whether or not a task lives.
BACKGROUND = {
    *("hello", "beat", "goodbye", "reconcile", "discard", "release", "reap", "reap_claim"),
    *("bury", "defer", "condemn", "drain", "drained", "rights"),
    *("HELLO", "AUTH", "SELECT", "CLIENT", "INFO", "PING", "CONFIG", "SCRIPT", "ECHO", "BZPOPMIN"),
    *("SMEMBERS", "HGETALL", "SADD", "SREM", "PUBLISH", "BRPOP", "RPOP", "LLEN", "ZREVRANGE"),
    *("SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "ACL"),
}

When = Literal["before", "after"]
Matches = Callable[[Command], bool]


def in_pool(command: Command) -> bool:
    """Whether the process that runs the task sent it."""
    return (command.script or command.name) not in BACKGROUND | {"claim"}


def in_dispatch(command: Command) -> bool:
    """Whether it is more than the greeting of a new connection."""
    return command.name not in {"HELLO", "AUTH", "SELECT", "CLIENT", "PING"}


class Stage:
    """A server, a proxy to it, a healthy worker, and a mother of victims.

    Args:
        results: where results go: the broker's own database ("here"), another one of its server
            ("elsewhere"), files ("files"), or a store that only counts chord parts ("counter").
    """

    def __init__(
        self,
        server: EmbeddedServer,
        proxy: Proxy,
        folder: Path,
        capture: Any,
        results: str = "here",
    ) -> None:
        self._capture = capture
        self.task_id = ""
        self.proxy = proxy
        self.client = redis.Redis.from_url(server.url)
        self._results = results
        self._folder = folder
        self.app: Any = make_app(server.url, self.backend(server.url))
        self._server = server
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "RELIER_HEARTBEAT_TTL": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "faults.steps_app"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._forked = 0
        self.journal = Journal(folder / "none")
        self._healthy_journal = folder / "journal"
        self.healthy = self.fork(server.url, CALM, "solo", "healthy")
        self.wait_ready(self.healthy)

    def close(self) -> None:
        """End every worker."""
        assert self._mother.stdin is not None
        self._mother.stdin.close()
        self._mother.wait(READY_DEADLINE_S)
        self.client.close()
        # Results of groups listen until they are collected, with their app: let it be now, while
        # the proxy and the server are there.
        self.app = None
        gc.collect()

    def backend(self, broker: str) -> str:
        """Return the result backend's URL as it is seen by this way to the server."""
        other = broker.rpartition("/")[0] + "/1"
        return {
            "here": broker,
            "elsewhere": other,
            "files": f"file://{self._folder}",
            "counter": f"support.counting:CountingBackend+{other}",
        }[self._results]

    def fork(
        self, broker: str, queue: str, pool: str, name: str, env: dict[str, str] | None = None
    ) -> Victim:
        """Fork a worker."""
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._forked += 1
        log = self._folder / f"{name}-{self._forked}.log"
        argv = ["worker", "-P", pool, "-c", "1", "-n", f"{name}@test", "-l", "INFO"]
        argv += ["-Q", queue, "--without-mingle", "--without-gossip"]
        order = {
            "argv": argv,
            "broker": broker,
            "backend": self.backend(broker),
            "log": str(log),
            "env": {
                "DIRECT_URL": self._server.url,
                "RELIER_TEST_JOURNAL": str(self._healthy_journal),
                "RELIER_CHECKPOINT_BACKEND": "filesystem",
                "RELIER_CHECKPOINT_DIR": str(self._folder / "checkpoints"),
                **(env or {}),
            },
        }
        self._mother.stdin.write(json.dumps(order) + "\n")
        self._mother.stdin.flush()
        return Victim(int(self._mother.stdout.readline()), log)

    def wait_ready(self, worker: Victim) -> None:
        """Wait until it says so."""
        wait_for(
            lambda: "ready." in worker.log_text(),
            READY_DEADLINE_S,
            lambda: worker.log_text()[-3000:],
        )

    def report(self, series: str, tried: int, of: int) -> None:
        """Print how many crash points were tried, past pytest's capture."""
        with self._capture.global_and_fixture_disabled():
            where = "" if self._results == "here" else f" (results {self._results})"
            print(f"\ncrash at every step: {series}{where}: {tried} points of {of}", end="")

    def publish(self, life: Life, app: Any = None) -> None:
        """Publish a life, by the stage's own app or another."""
        self.task_id = life.publish(app or self.app)

    def begin(self) -> None:
        """Start a point with nothing in Redis and nothing in the journal."""
        self._healthy_journal.unlink(missing_ok=True)
        self.journal = Journal(self._healthy_journal)


@dataclass
class Victim:
    """A forked worker."""

    pid: int
    log: Path

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL all of it."""
        os.killpg(self.pid, signal.SIGKILL)

    def kill_pool_process(self) -> None:
        """SIGKILL the process that runs its tasks."""
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


# -- the laws


def finished(stage: Stage, life: Life) -> bool:
    return all(stage.journal.count(*line) for line in life.once) and not leftovers(stage.client)


def assert_laws(stage: Stage, life: Life, where: str) -> None:
    """Wait until all has settled; then everything happened once, and nothing is left."""
    deadline = time.monotonic() + FINISH_DEADLINE_S
    while not finished(stage, life) and time.monotonic() < deadline:
        time.sleep(0.02)
    story = [entry.fields for entry in stage.journal.entries()]
    left = leftovers(stage.client)
    counts = {line: stage.journal.count(*line) for line in life.once}
    assert set(counts.values()) == {1}, f"{life.name}, {where}: {counts}; {story}; left: {left}"
    assert not left, f"{life.name}, {where}: left {left}"
    for line in life.never:
        assert not stage.journal.count(*line), f"{life.name}, {where}: {story}"
    kinds = events(stage.client, stage.task_id)
    generations = kinds.count("accepted") + kinds.count("next")
    ends = sum(kinds.count(kind) for kind in ("ended", "next", "continued", "dead"))
    assert kinds.count("committed") <= ends == generations, f"{life.name}, {where}: {kinds}"


def events(client: redis.Redis, task_id: str) -> list[str]:
    """What Redis wrote down about a task, in order."""
    found = []
    for queue in (VICTIM, CALM):
        for _, fields in client.xrange(f"rl:{{{queue}}}:events"):
            if fields[b"i"].decode() == task_id:
                found.append(fields[b"k"].decode())
    return found


def count_commands(stage: Stage, life: Life, matches: Matches, app: Any = None) -> int:
    """Let the life pass uncut; return how many commands it took."""
    stage.begin()
    stage.proxy.forget()
    stage.publish(life, app)
    assert_laws(stage, life, "uncut")
    return stage.proxy.count(matches)


def shoot(
    stage: Stage,
    life: Life,
    n: int,
    when: When,
    matches: Matches,
    kill: Callable[[], None],
    app: Any = None,
) -> Cut:
    """Publish the life under a rule that kills at the n-th command from now."""
    stage.begin()
    rule = stage.proxy.cut_before if when == "before" else stage.proxy.cut_after
    cut = rule(n, matches, kill)
    stage.publish(life, app)
    return cut


def every_point(commands: int) -> list[tuple[int, When]]:
    """Return before and after each command."""
    return [(n, when) for n in range(1, commands + 1) for when in ("before", "after")]


def die_in_pool_at_every_command(stage: Stage, life: Life, budget: int | None = None) -> None:
    """Kill the victim's pool process before and after each command of a life, one life each.

    Args:
        budget: how many points to try at the most; None tries half of them.
    """
    victim = stage.fork(stage.proxy.url, VICTIM, "prefork", "victim")
    stage.wait_ready(victim)
    try:
        count_commands(stage, life, in_pool)  # the first time there are greetings beside them
        points = every_point(count_commands(stage, life, in_pool))
        tried = 0
        for n, when in sample(points, life.name, budget):
            cut = shoot(stage, life, n, when, in_pool, victim.kill_pool_process)
            assert_laws(stage, life, f"{when} {n} ({cut.command})")
            tried += cut.fired.is_set()
            cut.nth = 0  # if the life took fewer commands this time, the rule is not to fire later
        stage.report(f"{life.name}, pool process", tried, len(points))
    finally:
        victim.kill()


@contextmanager
def open_stage(
    server: EmbeddedServer,
    folder: Path,
    request: pytest.FixtureRequest,
    results: str = "here",
) -> Iterator[Stage]:
    """Set a stage on an empty server."""
    with redis.Redis.from_url(server.url) as admin:
        admin.flushall()
    with Proxy(server.url) as proxy:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        running = Stage(server, proxy, folder, capture, results)
        try:
            yield running
        finally:
            running.close()
