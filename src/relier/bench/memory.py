"""What a task in a worker's hands costs the server, beyond its message."""

from __future__ import annotations

import time
from typing import Any

from relier.bench.figures import Figure, Spread, ratios
from relier.bench.lab import Effort, Lab
from relier.bench.workload import QUEUE, RELIER, VANILLA
from relier.protocol.identity import Identity, mint_worker_id
from relier.store import claiming, running
from relier.store.claiming import Claimed
from relier.worker import delivery

NAME = "memory"
_BAR_BYTES = 500
_SETTLE_S = 0.3


def measure(lab: Lab, effort: Effort) -> list[Figure]:
    """Claim many tasks under the name of a worker that is nobody, then start them."""
    _rehearse(lab)
    vanilla: list[float] = []
    claimed: list[float] = []
    started: list[float] = []
    for _ in range(effort.repeats):
        vanilla.append(_vanilla_bytes(lab, effort.claims))
        per_claimed, per_started = _bytes(lab, effort.claims)
        claimed.append(per_claimed)
        started.append(per_started)
    return [
        _figure(f"server memory per claimed task, {effort.claims:,} of them", claimed, vanilla),
        _figure("the same once started", started, vanilla),
    ]


def _figure(name: str, ours: list[float], vanilla: list[float]) -> Figure:
    spread = Spread(ours, "bytes")
    return Figure(
        NAME,
        f"{name}, less its message",
        vanilla=Spread(vanilla, "bytes"),
        relier=spread,
        ratio=ratios(ours, vanilla),
        bar=f"<= {_BAR_BYTES} bytes",
        met=spread.median <= _BAR_BYTES,
    )


def _rehearse(lab: Lab) -> None:
    """Run every script once, so that the server's cache of them is not counted."""
    _bytes(lab, 10)


def _bytes(lab: Lab, count: int) -> tuple[float, float]:
    """Return the bytes per claimed and per started task."""
    lab.fresh()
    before = _used(lab)
    lab.task(RELIER, "add").push_many([(i, i) for i in range(count)])
    worker = mint_worker_id()
    lab.store.run(claiming.hello(lab.store.keys, worker, {"epoch": 1}))
    taken = _claim(lab, worker, count)
    size = sum(len(each.raw) for each in taken)
    after_claim = _used(lab)
    for each in taken:
        lab.store.run(_start(lab, each))
    after_start = _used(lab)
    return (after_claim - before - size) / count, (after_start - before - size) / count


def _claim(lab: Lab, worker: str, count: int) -> list[Claimed]:
    taken: list[Claimed] = []
    while len(taken) < count:
        operation = claiming.claim(lab.store.keys, worker, 1, [QUEUE], count - len(taken), [""])
        taken += lab.store.run_once(operation).claimed
    return taken


def _start(lab: Lab, claimed: Claimed) -> Any:
    headers = delivery.read(claimed)["headers"]
    who = Identity(headers["id"], headers["rl_token"], 0, headers["task"])
    return running.start(lab.store.keys, claimed.claim, who, own_limit=None, max_resurrections=5)


def _vanilla_bytes(lab: Lab, count: int) -> float:
    """Return the bytes per delivered and unacknowledged message of vanilla Celery."""
    lab.fresh()
    app = lab.app(VANILLA)
    task = app.tasks["bench.add"]
    before = _used(lab)
    with app.producer_or_acquire() as producer:
        for i in range(count):
            task.apply_async((i, i), producer=producer)
    size = sum(len(raw) for raw in lab.store.redis.lrange(QUEUE, 0, -1))
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        for _ in range(count):
            channel.basic_get(QUEUE, no_ack=False)
        after = _used(lab)
        channel.qos._delivered.clear()
    return (after - before - size) / count


def _used(lab: Lab) -> int:
    """Return the memory of the data itself: no event stream, no buffers of clients or the log."""
    redis = lab.store.redis
    redis.delete(lab.store.keys.events(QUEUE))
    time.sleep(_SETTLE_S)  # the server frees in the background
    info = redis.info("memory")
    buffers = info["mem_clients_normal"] + info["mem_aof_buffer"]
    return int(info["used_memory"]) - int(buffers)
