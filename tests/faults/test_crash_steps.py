"""Crash at every step: one task's life, cut before and after each Redis command that it sends.

The victim speaks through a proxy; the rule kills it (its pool process, or all of it) as the n-th
command passes. Whoever is left finishes, and the laws are read from Redis and from what the tasks
themselves wrote down.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import redis
from celery import chain, chord, group

from faults.steps_app import make_app
from relier.store.embedded import EmbeddedServer
from support.journal import Journal
from support.proxy import Command, Cut, Proxy
from support.settled import leftovers
from support.wait import wait_for
from support.worker import TESTS

VICTIM, CALM = "victim", "calm"
READY_DEADLINE_S = 30.0
FINISH_DEADLINE_S = 40.0
LIFE_DEADLINE_S = 15.0
WHOLE_WORKER_BUDGET = 12

# What the main process sends on its own account, whether or not a task lives.
BACKGROUND = {
    *("hello", "beat", "goodbye", "reconcile", "discard", "release", "reap", "reap_claim"),
    *("bury", "defer", "condemn"),
    *("HELLO", "AUTH", "SELECT", "CLIENT", "INFO", "PING", "CONFIG", "SCRIPT", "ECHO", "BZPOPMIN"),
    *("SMEMBERS", "HGETALL", "SADD", "SREM", "PUBLISH", "BRPOP", "RPOP", "LLEN", "ZREVRANGE"),
    *("SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE"),
}

When = Literal["before", "after"]
Matches = Callable[[Command], bool]


def in_pool(command: Command) -> bool:
    """Whether the process that runs the task sent it."""
    return (command.script or command.name) not in BACKGROUND | {"claim"}


def in_dispatch(command: Command) -> bool:
    """Whether it is more than the greeting of a new connection."""
    return command.name not in {"HELLO", "AUTH", "SELECT", "CLIENT", "PING"}


def in_life(command: Command) -> bool:
    """The same, and the claims before it."""
    return in_pool(command) or command.script == "claim"


# -- the lives


@dataclass(frozen=True)
class Life:
    """One canvas, and what must be in the journal when all is over."""

    name: str
    publish: Callable[[Any], str]
    once: Sequence[tuple[object, ...]]
    never: Sequence[tuple[object, ...]] = ()


def _link_and_chord(app: Any) -> str:
    part, first, second = app.tasks["part"], str(uuid.uuid4()), str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    one = part.s(1, after=second).set(queue=VICTIM, task_id=first, link=[link])
    two = part.s(2).set(queue=CALM, task_id=second)
    chord([one, two], app.tasks["total"].s().set(queue=CALM)).apply_async()
    return first


def _failure_in_chord(app: Any) -> str:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    failed = app.tasks["failed"]
    errback = failed.s("part").set(queue=CALM)
    one = app.tasks["failing"].s(after=second)
    one = one.set(queue=VICTIM, task_id=first, link_error=[errback])
    two = app.tasks["part"].s(2).set(queue=CALM, task_id=second)
    body = app.tasks["total"].s().set(queue=CALM)
    chord([one, two], body.on_error(failed.s("body").set(queue=CALM))).apply_async()
    return first


def _failing_chain_in_chord(app: Any) -> str:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    failed = app.tasks["failed"]
    one = app.tasks["failing"].s(after=second).set(queue=VICTIM, task_id=first)
    one = chain(one, app.tasks["effect"].s("rest").set(queue=CALM))
    two = app.tasks["part"].s(2).set(queue=CALM, task_id=second)
    body = app.tasks["total"].s().set(queue=CALM)
    chord([one, two], body.on_error(failed.s("body").set(queue=CALM))).apply_async()
    return first


def _chain_into_chord(app: Any) -> str:
    first, effect = str(uuid.uuid4()), app.tasks["effect"]
    fan = group(effect.s("left").set(queue=CALM), effect.s("right").set(queue=CALM))
    head = app.tasks["part"].s(1).set(queue=VICTIM, task_id=first)
    chain(head, fan, app.tasks["effect"].si(0, "end").set(queue=CALM)).apply_async()
    return first


def _canvas_callbacks(app: Any) -> str:
    first, effect = str(uuid.uuid4()), app.tasks["effect"]
    fan = group(effect.s("left").set(queue=CALM), effect.s("right").set(queue=CALM))
    header = [effect.s("up").set(queue=CALM), effect.s("down").set(queue=CALM)]
    joined = chord(header, effect.si(0, "end").set(queue=CALM))
    part = app.tasks["part"].s(1).set(queue=VICTIM, task_id=first, link=[fan, joined])
    part.apply_async()
    return first


def _retry(app: Any) -> str:
    first = str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    app.tasks["again"].s().set(queue=VICTIM, task_id=first, link=[link]).apply_async()
    return first


def _replace(app: Any) -> str:
    first = str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    app.tasks["swap"].s().set(queue=VICTIM, task_id=first, link=[link]).apply_async()
    return first


LIVES = [
    Life("link and chord", _link_and_chord, [("total", "[10, 20]"), ("effect", "link", 10)]),
    Life(
        "failure in chord",
        _failure_in_chord,
        [("failed", "part"), ("failed", "body")],
        [("total",)],
    ),
    Life(
        "failing chain in chord",
        _failing_chain_in_chord,
        [("failed", "body")],
        [("total",), ("effect",)],
    ),
    Life(
        "chain into chord",
        _chain_into_chord,
        [("effect", "left", 10), ("effect", "right", 10), ("effect", "end", 0)],
    ),
    Life(
        "canvas callbacks",
        _canvas_callbacks,
        [("effect", word, 10) for word in ("left", "right", "up", "down")] + [("effect", "end", 0)],
    ),
    Life("retry", _retry, [("effect", "link", 1)]),
    Life("replace", _replace, [("total", "[10, 20]"), ("effect", "link", 30)]),
]


# -- the stage


class Stage:
    """A server, a proxy to it, a healthy worker, and a mother of victims."""

    def __init__(self, server: EmbeddedServer, proxy: Proxy, folder: Path, capture: Any) -> None:
        self._capture = capture
        self.task_id = ""
        self.proxy = proxy
        self.client = redis.Redis.from_url(server.url)
        self.app: Any = make_app(server.url, server.url)
        self._folder = folder
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

    def fork(self, broker: str, queue: str, pool: str, name: str) -> Victim:
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
            "backend": broker,
            "log": str(log),
            "env": {
                "DIRECT_URL": self._server.url,
                "RELIER_TEST_JOURNAL": str(self._healthy_journal),
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
            print(f"\ncrash at every step: {series}: {tried} points of {of}", end="")

    def publish(self, life: Life, app: Any = None) -> None:
        """Publish a life, by the stage's own app or another."""
        self.task_id = life.publish(app or self.app)

    def begin(self) -> None:
        """Start a point with nothing in Redis and nothing in the journal."""
        self._healthy_journal.unlink(missing_ok=True)
        self.journal = Journal(self._healthy_journal)

    def rescue(self, on: bool) -> None:
        """Let the healthy worker take the victim's queue over, or leave it alone again."""
        order = self.app.control.add_consumer if on else self.app.control.cancel_consumer
        reply = wait_for(lambda: order(VICTIM, reply=True, destination=["healthy@test"]), 10)
        assert "ok" in reply[0]["healthy@test"], reply


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


@pytest.fixture(scope="module")
def stage(
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Stage]:
    with redis.Redis.from_url(session_server.url) as admin:
        admin.flushall()
    with Proxy(session_server.url) as proxy:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        running = Stage(session_server, proxy, tmp_path_factory.mktemp("steps"), capture)
        try:
            yield running
        finally:
            running.close()


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


# -- the series


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


def every_point(commands: int, budget: int) -> list[tuple[int, When]]:
    """Return before and after each command; of more than the budget an even sample."""
    points: list[tuple[int, When]] = [
        (n, when) for n in range(1, commands + 1) for when in ("before", "after")
    ]
    if len(points) <= budget:
        return points
    return [points[index * len(points) // budget] for index in range(budget)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_the_pool_process_dies_at_every_command(stage: Stage, life: Life) -> None:
    victim = stage.fork(stage.proxy.url, VICTIM, "prefork", "victim")
    stage.wait_ready(victim)
    try:
        count_commands(stage, life, in_pool)  # the first time there are greetings beside them
        points = every_point(count_commands(stage, life, in_pool), 100)
        tried = 0
        for n, when in points:
            cut = shoot(stage, life, n, when, in_pool, victim.kill_pool_process)
            assert_laws(stage, life, f"{when} {n} ({cut.command})")
            tried += cut.fired.is_set()
            cut.nth = 0  # if the life took fewer commands this time, the rule is not to fire later
        stage.report(f"{life.name}, pool process", tried, len(points))
    finally:
        victim.kill()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_the_whole_worker_dies_at_every_command(stage: Stage, pool: str) -> None:
    life = LIVES[0]
    victim = stage.fork(stage.proxy.url, VICTIM, pool, "victim")
    stage.wait_ready(victim)
    count_commands(stage, life, in_life)
    points = every_point(count_commands(stage, life, in_life), WHOLE_WORKER_BUDGET)
    tried = 0
    for n, when in points:
        if not victim.alive():
            victim = stage.fork(stage.proxy.url, VICTIM, pool, "victim")
            stage.wait_ready(victim)
        cut = shoot(stage, life, n, when, in_life, victim.kill)
        wait_for(lambda cut=cut: cut.fired.is_set() or finished(stage, life), LIFE_DEADLINE_S)
        stage.rescue(True)
        assert_laws(stage, life, f"{pool}, {when} {n} ({cut.command})")
        stage.rescue(False)
        tried += cut.fired.is_set()
        cut.nth = 0
    if victim.alive():
        victim.kill()
    stage.report(f"{life.name}, whole {pool} worker", tried, len(points))


def _push(app: Any) -> str:
    return str(app.tasks["effect"].push("1", "sent").id)


def _push_many(app: Any) -> str:
    calls = [(number, "sent") for number in (1, 2, 3)]
    return str(app.tasks["effect"].push_many(calls)[0].id)


def _delay(app: Any) -> str:
    return str(app.tasks["effect"].delay("1", "sent").id)


def _chord(app: Any) -> str:
    part = app.tasks["part"]
    return str(chord([part.s(1), part.s(2)], app.tasks["total"].s()).apply_async().parent[0].id)


DISPATCHES = [
    Life("push", _push, [("effect", "sent", 1)]),
    Life("push_many", _push_many, [("effect", "sent", n) for n in (1, 2, 3)]),
    Life("delay", _delay, [("effect", "sent", 1)]),
    Life("chord", _chord, [("total", "[10, 20]"), ("part", 1), ("part", 2)]),
]


@pytest.mark.parametrize("life", DISPATCHES, ids=lambda life: life.name)
def test_the_producer_is_cut_at_every_command(stage: Stage, life: Life) -> None:
    producer = make_app(stage.proxy.url, stage.proxy.url)
    count_commands(stage, life, in_dispatch, producer)
    points = every_point(count_commands(stage, life, in_dispatch, producer), 100)
    tried = 0
    for n, when in points:
        cut = shoot(stage, life, n, when, in_dispatch, lambda: None, producer)
        assert_laws(stage, life, f"dispatch {when} {n} ({cut.command})")
        tried += cut.fired.is_set()
        cut.nth = 0
    stage.report(f"dispatch by {life.name}", tried, len(points))
