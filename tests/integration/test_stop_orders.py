"""Orders to stop a task: each beat says them again until the worker has dealt with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relier.protocol.identity import Claim
from relier.store import claiming, running
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from support.bench import KEYS, Bench

QUEUE = "orders"


@pytest.fixture
def bench(server: EmbeddedServer) -> Iterator[Bench]:
    store = Store(Address.parse(server.url), KEYS)
    store.redis.flushdb()
    yield Bench(store)
    store.close()


def order(bench: Bench, claim: Claim, task: str) -> int:
    return bench.store.run(running.terminate(KEYS, claim, task))


def beat(bench: Bench, *stopped: str) -> tuple[str, ...]:
    return bench.store.run(claiming.beat(KEYS, "w", {"queues": QUEUE}, stopped)).stop


def test_an_order_whose_reply_was_lost_is_said_again(bench: Bench) -> None:
    bench.redis.hset(KEYS.worker("w"), "stops", 1)
    first, second = (bench.begin(task, QUEUE, "") for task in "ab")
    assert order(bench, first, "a") == order(bench, first, "a") == running.ORDERED
    assert beat(bench) == (first.tag,)
    assert order(bench, second, "b") == running.ORDERED
    assert beat(bench) == (first.tag, second.tag), "as if the reply had been lost"
    for _ in range(2):
        assert beat(bench, first.tag, "gone@orders") == (second.tag,)
    assert beat(bench, first.tag, second.tag) == ()
    assert not bench.redis.hexists(KEYS.worker("w"), "stop")


def test_a_worker_that_does_not_say_that_it_follows_orders_gets_none(bench: Bench) -> None:
    claim = bench.begin("a", QUEUE, "")
    assert order(bench, claim, "a") == running.TOO_OLD
    assert beat(bench) == ()
    bench.store.run(running.finish(KEYS, claim, "a", "SUCCESS", None))
    assert order(bench, claim, "a") == running.GONE
