"""Does each command answer at once, and leave the server alone, when there is very much?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import relier
from relier.bench.figures import Figure, Spread
from relier.bench.lab import Effort, Lab
from relier.bench.waiting import BenchError
from relier.bench.workload import QUEUE, RELIER
from relier.protocol.identity import Identity, mint_worker_id
from relier.store import claiming, running
from relier.store.claiming import Claimed, Unread
from relier.worker import delivery

NAME = "scale"
_BAR_S, _BAR_BLOCKED_MS = 1.0, 5.0
_RUNS = 3
_SLICE = 20_000
_CLAIMS_PER_WORKER = 4
_ERRORS = 20
_LOGGED_FROM_US = 100
_LOG_LENGTH = 100_000
_DEADLINE_S = 120.0
_LONGEST_WORD = 20
_ANSWERS = (0, 1)
"""Exit statuses of a command that answered; 1 is a check that failed."""


class _Answer(NamedTuple):
    took_s: float
    blocked_ms: float


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Fill the server, then give each command in turn."""
    lab.fresh()
    _make_dead(lab, effort.dead)
    queued = list(_queue(lab, effort.queued))
    held = _make_workers(lab, effort.workers)
    redis: Any = lab.store.redis
    letter = redis.zrange(lab.store.keys.dead(QUEUE), 0, 0)[0].decode()
    commands: list[tuple[str, ...]] = [
        ("tasks", "list"),
        ("tasks", "inflight"),
        ("tasks", "inspect", queued[-1]),
        ("dlq", "list"),
        ("dlq", "list", "--group"),
        ("dlq", "list", "--task", "nobody"),
        ("dlq", "inspect", letter),
        ("queue", "list"),
        ("worker", "status"),
        ("admission", "status"),
        ("doctor",),
        ("tasks", "cancel", held),
        ("queue", "pause", QUEUE),
        ("queue", "resume", QUEUE),
    ]
    asked = {_shown(command): _ask_often(lab, command) for command in commands}
    blocked = {name: Spread([each.blocked_ms for each in all_]) for name, all_ in asked.items()}
    worst = max(blocked, key=lambda name: blocked[name].median)
    much = f"{effort.queued:,} queued, {effort.dead:,} dead, {effort.workers:,} workers"
    return [
        *(_figure(name, [each.took_s for each in all_]) for name, all_ in asked.items()),
        Figure(
            NAME,
            f"longest time that one blocked the server ({worst}; {much})",
            relier=Spread(blocked[worst].values, "ms"),
            bar=f"< {_BAR_BLOCKED_MS:g} ms",
            met=blocked[worst].median < _BAR_BLOCKED_MS,
            detail={name: spread.as_json() for name, spread in blocked.items()},
        ),
    ]


def _figure(name: str, took_s: list[float]) -> Figure:
    spread = Spread(took_s, "s")
    return Figure(NAME, name, relier=spread, bar=f"< {_BAR_S:g} s", met=spread.median < _BAR_S)


def _shown(command: tuple[str, ...]) -> str:
    words = ["ID" if len(word) > _LONGEST_WORD else word for word in command]
    return f"rl {' '.join(words)}"


def _ask_often(lab: Lab, command: tuple[str, ...]) -> list[_Answer]:
    return [_ask(lab, command) for _ in range(_RUNS)]


def _ask(lab: Lab, command: tuple[str, ...]) -> _Answer:
    """Return how long a command took, the interpreter's start included, and blocked the server."""
    redis: Any = lab.store.redis
    redis.config_set("slowlog-log-slower-than", _LOGGED_FROM_US)
    redis.config_set("slowlog-max-len", _LOG_LENGTH)
    redis.slowlog_reset()
    sources = str(Path(relier.__file__).parents[1])
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "relier.cli", *command, "--url", lab.server.url, "--json"],
        cwd=lab.folder,
        env={**os.environ, "PYTHONPATH": sources},
        capture_output=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    took_s = time.perf_counter() - begun
    if done.returncode not in _ANSWERS:
        said = done.stderr.decode(errors="replace").strip()
        raise BenchError(f"`rl {' '.join(command)}` exited with {done.returncode}: {said[-500:]}")
    entries: list[dict[str, Any]] = redis.slowlog_get(_LOG_LENGTH)
    redis.config_set("slowlog-log-slower-than", 10_000)
    longest_us = max((each["duration"] for each in entries), default=_LOGGED_FROM_US)
    return _Answer(took_s, longest_us / 1000)


def _queue(lab: Lab, count: int) -> Iterator[str]:
    """Put tasks into the queue; yield their ids."""
    task = lab.task(RELIER, "add")
    for start in range(0, count, _SLICE):
        calls = [(i, i) for i in range(start, min(start + _SLICE, count))]
        yield from (receipt.id for receipt in task.push_many(calls))


def _make_dead(lab: Lab, count: int) -> None:
    """Make dead letters, as a worker does of what it cannot run."""
    for _ in _queue(lab, count):
        pass
    worker = _enter(lab, "undertaker")
    keys = lab.store.keys
    buried = 0
    while buried < count:
        taken = _claim(lab, worker, min(500, count - buried))
        lab.store.run_all(
            claiming.bury(keys, each.claim, _unread(each), _id(each), _letter(buried + i))
            for i, each in enumerate(taken)
        )
        buried += len(taken)


def _letter(number: int) -> dict[str, str]:
    error = f"ValueError: the parcel {number} is of kind {'abcdefghijklmnopqrst'[number % _ERRORS]}"
    return {"reason": "failed", "error": error, "name": "bench.add"}


def _make_workers(lab: Lab, count: int) -> str:
    """Make entries of workers that hold tasks; return the id of one that runs."""
    held = ""
    for number in range(count):
        worker = _enter(lab, f"worker-{number}@bench")
        taken = _claim(lab, worker, _CLAIMS_PER_WORKER)
        for each in taken[: _CLAIMS_PER_WORKER // 2]:
            held = _id(each)
            who = Identity(held, _unread(each).token, 0, "bench.add")
            lab.store.run(
                running.start(lab.store.keys, each.claim, who, own_limit=None, max_resurrections=5)
            )
    return held


def _enter(lab: Lab, name: str) -> str:
    worker = mint_worker_id()
    facts: dict[str, str | int] = {"epoch": 1, "name": name, "host": "bench", "pid": 1}
    facts |= {"pool": "prefork", "size": 2, "queues": QUEUE}
    lab.store.run(claiming.hello(lab.store.keys, worker, facts))
    return worker


def _claim(lab: Lab, worker: str, count: int) -> list[Claimed]:
    operation = claiming.claim(lab.store.keys, worker, 1, [QUEUE], count, [""])
    return list(lab.store.run_once(operation).claimed)


def _id(claimed: Claimed) -> str:
    return str(delivery.read(claimed)["headers"]["id"])


def _unread(claimed: Claimed) -> Unread:
    headers = delivery.read(claimed)["headers"]
    return Unread(headers["id"], headers["rl_token"])
