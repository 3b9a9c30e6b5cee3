"""Bulk dispatch: how fast, and for how long the server was blocked by one script."""

from __future__ import annotations

import time

from relier.bench.figures import Figure, Spread, ratios
from relier.bench.lab import Effort, Lab
from relier.bench.workload import RELIER, VANILLA

NAME = "bulk"
_BAR_PER_S = 40_000
_BAR_BLOCKED_MS = 5.0
_VANILLA_SHARE = 20
_LOGGED_FROM_US = 200
_LOG_LENGTH = 4_096


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Send many small messages from one process, in turns with a loop of ``.delay()``."""
    vanilla, ours = lab.task(VANILLA, "add"), lab.task(RELIER, "add")
    delayed, pushed, blocked = [], [], []
    redis = lab.store.redis
    redis.config_set("slowlog-log-slower-than", _LOGGED_FROM_US)
    redis.config_set("slowlog-max-len", _LOG_LENGTH)
    ours.push_many([(0, 0)])
    for _ in range(effort.repeats):
        lab.fresh()
        calls = effort.bulk // _VANILLA_SHARE
        begun = time.perf_counter()
        for i in range(calls):
            vanilla.delay(i, i)
        delayed.append(calls / (time.perf_counter() - begun))

        lab.fresh()
        redis.slowlog_reset()
        batch = [(i, i) for i in range(effort.bulk)]
        begun = time.perf_counter()
        ours.push_many(batch)
        pushed.append(effort.bulk / (time.perf_counter() - begun))
        blocked.append(_longest_script_ms(lab))
    redis.config_set("slowlog-log-slower-than", 10_000)
    return [
        Figure(
            NAME,
            "push_many, one process (vanilla: a loop of .delay())",
            vanilla=Spread(delayed, "/s"),
            relier=Spread(pushed, "/s"),
            ratio=ratios(pushed, delayed),
            bar=f">= {_BAR_PER_S:,}/s",
            met=Spread(pushed).median >= _BAR_PER_S,
        ),
        Figure(
            NAME,
            "longest time one push_many script blocked the server",
            relier=Spread(blocked, "ms"),
            bar=f"< {_BAR_BLOCKED_MS:g} ms",
            met=Spread(blocked).median < _BAR_BLOCKED_MS,
        ),
    ]


def _longest_script_ms(lab: Lab) -> float:
    """Return the longest script of this run; what the slow log left out was below its threshold."""
    took_us = [
        entry["duration"]
        for entry in lab.store.redis.slowlog_get(_LOG_LENGTH)
        if entry["command"].startswith(b"EVALSHA")
    ]
    return float(max(took_us, default=_LOGGED_FROM_US)) / 1_000
