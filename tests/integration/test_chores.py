"""Phoenix's chores: the trouble of one is not the others'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relier.config import load
from relier.phoenix.service import Phoenix
from relier.store.address import Address
from relier.store.broker import Broker
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys

KEYS, QUEUE = Keys(), "chores"


def test_a_key_of_another_type_stops_no_chore(server: EmbeddedServer) -> None:
    settings = load({"RELIER_EVENTS_MAX_LENGTH": "1000", "RELIER_DLQ_MAX_COUNT": "1"}, Path("none"))
    broker = Broker(Address.parse(server.url), settings)
    redis: Any = broker.store.redis
    wrong, orphan = KEYS.idempotency("wrong"), KEYS.idempotency("orphan")
    redis.set(wrong, "no hash")
    redis.hset(orphan, mapping={"w": "gone", "c": "1", "q": QUEUE, f"p:{QUEUE}": "1"})
    redis.rpush(f"rl:{{{QUEUE}}}:parked:orphan", "|raw")
    redis.sadd(KEYS.parked_keys, wrong, orphan)
    redis.sadd(KEYS.queues, QUEUE)
    with redis.pipeline() as pipe:
        for number in range(3_000):
            pipe.xadd(KEYS.events(QUEUE), {"k": number})
        pipe.execute()
    for at_ms in (1, 2):
        redis.hset(KEYS.dead_letter(QUEUE, f"id-{at_ms}"), mapping={"parcel": "|x", "at_ms": at_ms})
        redis.zadd(KEYS.dead(QUEUE), {f"id-{at_ms}": at_ms})

    Phoenix(broker).look()

    assert redis.lrange(QUEUE, 0, -1) == [b"raw"]
    assert redis.xlen(KEYS.events(QUEUE)) < 3_000
    assert redis.zrange(KEYS.dead(QUEUE), 0, -1) == [b"id-2"]
    broker.store.close()
