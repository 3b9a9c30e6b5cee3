"""A batch is what its messages are when they are dispatched one after another."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from relier.store.publishing import Outgoing, enqueue

QUEUE = "batches"
TIMES = ("at", "due", "f")
BEFORE: tuple[dict[str, str], ...] = (
    {},
    {"s": "q", "g": "0", "l": "1", "rt": "first", "t:first": "1:0"},
    {"s": "r", "g": "1", "l": "1", "rt": "first", "t:first": "1:0"},
    {"s": "c", "g": "0", "l": "2", "rt": "first", "t:first": "2:0"},
    {"s": "e", "g": "0", "l": "1", "rt": "first", "t:first": "1:0", "a": "1"},
    {"s": "w", "g": "0", "l": "1", "rt": "first", "t:first": "1:0"},
)


@pytest.fixture
def store(server: EmbeddedServer) -> Iterator[Store]:
    made = Store(Address.parse(server.url), Keys())
    yield made
    made.close()


def _message(task_id: str, token: str, generation: int, delay_ms: int = 0) -> Outgoing:
    raw = f"{task_id} {token} {generation}"
    return Outgoing(task_id, token, generation, "", delay_ms, "name", raw)


def _after(store: Store, before: dict[str, str], batches: Sequence[Sequence[Outgoing]]) -> Any:
    """Return what was answered, and all that the server holds then, times apart."""
    client, keys = store.redis, store.keys
    client.flushdb()
    for task_id in "ab":
        if before:
            client.hset(keys.task(task_id), mapping=before)
    answers = [verdict for batch in batches for verdict in store.run(enqueue(keys, QUEUE, batch))]
    records = {}
    for task_id in "ab":
        record = client.hgetall(keys.task(task_id))
        records[task_id] = {k: v for k, v in record.items() if k.decode() not in TIMES}
    events = [fields for _, fields in client.xrange(keys.events(QUEUE))]
    scheduled = sorted(client.zrange(keys.scheduled(QUEUE), 0, -1))
    return answers, records, client.lrange(QUEUE, 0, -1), scheduled, events


def test_one_publish_that_is_twice_in_a_batch_is_accepted_once(store: Store) -> None:
    twice = [_message("a", "t", 0)] * 2
    answers, _, waiting, *_ = _after(store, {}, [twice])
    assert (answers, waiting) == ([1, 0], [b"a t 0"])


def test_two_generations_in_a_batch_follow_each_other(store: Store) -> None:
    generations = [_message("a", "t1", 1), _message("a", "t0", 0)]
    _, records, *_ = _after(store, {}, [generations])
    assert (records["a"][b"g"], records["a"][b"rt"]) == (b"1", b"t1"), "of one life"


def test_a_batch_is_its_messages_in_turn(store: Store) -> None:
    seed = int(os.environ.get("RELIER_FUZZ_SEED", random.randrange(2**32)))
    dice = random.Random(seed)
    for _ in range(500):
        before = dice.choice(BEFORE)
        batch = [
            _message(
                dice.choice("ab"),
                dice.choice(["first", "t0", "t1", "t2"]),
                dice.randint(-1, 2),
                dice.choice([0, 0, 60_000]),
            )
            for _ in range(dice.randint(1, 4))
        ]
        at_once, in_turn = ([batch], [[each] for each in batch])
        assert _after(store, before, at_once) == _after(store, before, in_turn), (
            f"RELIER_FUZZ_SEED={seed}: {batch} after {before}"
        )
