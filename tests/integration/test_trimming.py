"""Event streams are bounded in length and in age, by whoever looks around, and by the scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relier import config
from relier.phoenix.service import Phoenix
from relier.store import publishing, reading, trimming
from relier.store.address import Address
from relier.store.broker import Broker
from relier.store.embedded import EmbeddedServer
from relier.store.publishing import Outgoing

QUEUE = "q"
BLOCK = 100
"""Events that may stay beyond a bound: streams are trimmed by whole blocks."""


@pytest.fixture
def broker(server: EmbeddedServer) -> Iterator[Broker]:
    overrides = {"redis_url": server.url, "events_max_length": 500, "events_max_age_s": 3600}
    made = Broker(Address.parse(server.url), config.load({}, None, overrides))
    yield made
    made.store.close()


def write(broker: Broker, count: int, at_ms: int) -> None:
    with broker.store.redis.pipeline(transaction=False) as pipe:
        for n in range(count):
            pipe.xadd(broker.keys.events(QUEUE), {"k": "accepted", "i": str(n)}, id=f"{at_ms}-{n}")
        pipe.execute()


def length(broker: Broker) -> int:
    return int(broker.store.redis.xlen(broker.keys.events(QUEUE)))


def test_phoenix_keeps_the_latest_and_the_young(broker: Broker) -> None:
    broker.store.redis.sadd(broker.keys.queues, QUEUE, "other")
    broker.store.redis.set(broker.keys.events("other"), "not a stream")
    now_ms = reading.now_ms(broker.store)
    write(broker, 25_000, now_ms)
    Phoenix(broker).look()
    assert 500 <= length(broker) <= 500 + BLOCK
    [newest] = reading.events_before(broker.store, QUEUE, count=1)
    assert newest.fields["i"] == "24999"
    Phoenix(broker).look()
    assert broker.store.redis.ttl(broker.keys.events_trim) >= 0, "one of all, now and then"


def test_what_is_too_old_goes_though_there_is_room(broker: Broker) -> None:
    now_ms = reading.now_ms(broker.store)
    write(broker, 300, now_ms - 3_700_000)
    write(broker, 100, now_ms)
    trimming.trim(broker.store, [QUEUE], max_length=10_000, oldest_ms=now_ms - 3_600_000)
    assert 100 <= length(broker) < 100 + BLOCK


def test_no_stream_outgrows_the_scripts_own_bound(broker: Broker) -> None:
    write(broker, 101_000, 1000)
    out = Outgoing("a", "t-a", 0, "", 0, "name", "raw")
    broker.store.run(publishing.enqueue(broker.keys, QUEUE, [out]))
    assert 100_000 <= length(broker) <= 100_000 + BLOCK
