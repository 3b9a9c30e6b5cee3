"""However much a dead worker held, no script that brings it back moves more than a little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relier.config import load
from relier.phoenix.detector import Sighting, Verdict
from relier.phoenix.reaper import bring_back, wake_parked
from relier.store import reaping
from relier.store.address import Address
from relier.store.broker import Broker
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from support.bench import KEYS, Bench

QUEUE, CLAIMS, OWNERS, BEHIND_EACH = "steps", 120, 3, 300
DEAD = reaping.Suspect("w", "", "")
RULES = reaping.ReapRules(5, 15, 1000, 0, "", b"", b"")


@pytest.fixture
def bench(server: EmbeddedServer) -> Iterator[Bench]:
    store = Store(Address.parse(server.url), KEYS)
    store.redis.flushdb()
    yield Bench(store)
    store.close()


def test_a_script_moves_few_claims_and_wakes_few_of_those_that_wait(
    bench: Bench, server: EmbeddedServer
) -> None:
    for number in range(CLAIMS):
        key = f"pay:{number}" if number >= CLAIMS - OWNERS else ""
        bench.begin(f"task-{number}", QUEUE, key)
        if key:
            parked = f"rl:{{other}}:parked:{key}"
            bench.redis.lpush(parked, *(f"|waits {n}" for n in range(BEHIND_EACH)))
            bench.redis.sadd(KEYS.parked_keys, KEYS.idempotency(key))
            bench.redis.hset(KEYS.idempotency(key), "p:other", "1")
    bench.redis.sadd(KEYS.queues, "other")
    queues = [QUEUE, "other"]
    first = bench.store.run(reaping.reap(KEYS, DEAD, queues, "dead", RULES))
    assert (first.status, first.resurrected) == ("more", 50)
    assert 0 < bench.redis.llen("other") <= 500
    second = bench.store.run(reaping.reap(KEYS, DEAD, queues, "dead", RULES))
    assert (second.status, second.resurrected) == ("more", 50)

    address = Address.parse(server.url)
    broker = Broker(address, load({}, overrides={"resurrection_batch_size": 15}))
    verdict = Verdict("w", Sighting("", "", "", 1.0, True), "dead")
    bring_back(bench.store, broker, verdict)
    assert bench.redis.exists(KEYS.worker("w")), "the next look goes on"
    bring_back(bench.store, broker, verdict)
    assert not bench.redis.exists(KEYS.worker("w"))
    assert bench.redis.llen(QUEUE) == CLAIMS
    wake_parked(bench.store, broker)
    assert bench.redis.llen("other") == OWNERS * BEHIND_EACH
