"""Dead letters that are removed by themselves, where somebody asked for it; and only those."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from relier.config import load
from relier.phoenix.retention import Retention, retain
from relier.protocol.fingerprint import fingerprint
from relier.store import letters, reading
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from support.morgue import assert_index_agrees, open_morgue
from support.wait import wait_for

QUEUE, KEYS = "old", Keys()
FP = fingerprint("", "failed", "")


@pytest.fixture
def store(server: EmbeddedServer) -> Iterator[Store]:
    made = Store(Address.parse(server.url), KEYS)
    yield made
    made.close()


def _lay_out(store: Store, ages_ms: list[int], queue: str = QUEUE) -> None:
    """Put letters of these ages there, as the scripts write them."""
    redis: Any = store.redis
    now_ms = reading.now_ms(store)
    redis.sadd(KEYS.queues, queue)
    for n, age_ms in enumerate(ages_ms):
        name, at_ms = f"id-{n}", now_ms - age_ms
        fields = letters.fields_of({"reason": "failed"})
        redis.hset(KEYS.dead_letter(queue, name), items=["parcel", "|x", "at_ms", at_ms, *fields])
        redis.zadd(KEYS.dead(queue), {name: at_ms})
        redis.zadd(KEYS.group(queue, FP), {name: at_ms})
    redis.zadd(KEYS.groups(queue), {FP: len(ages_ms)})


def _left(store: Store, queue: str = QUEUE) -> list[str]:
    found: Any = store.redis.zrange(KEYS.dead(queue), 0, -1)
    return sorted((each.decode() for each in found), key=lambda name: int(name[3:]))


def _retain(store: Store, max_age_ms: int | None, max_count: int) -> int:
    store.redis.delete(KEYS.retention_turn)
    return retain(store, Retention(max_age_ms, max_count))


def test_nothing_is_removed_unless_it_is_asked_for() -> None:
    assert not Retention.of(load({})).asked_for
    asked = load({"RELIER_DLQ_MAX_AGE": "86400", "RELIER_DLQ_MAX_COUNT": "1000"})
    assert Retention.of(asked) == Retention(86_400_000, 1000)


@pytest.mark.parametrize(
    ("max_age_ms", "max_count", "left"),
    [
        (None, 0, [0, 1, 2, 3]),
        (3_600_000, 0, [0, 1]),
        (None, 3, [0, 1, 2]),
        (None, 9, [0, 1, 2, 3]),
        (3_600_000, 1, [0]),
        (5_000, 9, []),
    ],
)
def test_the_oldest_go_first(
    store: Store, max_age_ms: int | None, max_count: int, left: list[int]
) -> None:
    _lay_out(store, [10_000, 60_000, 7_200_000, 86_400_000])
    assert _retain(store, max_age_ms, max_count) == 4 - len(left)
    assert _left(store) == [f"id-{n}" for n in left]
    events: Any = store.redis.xrange(KEYS.events(QUEUE))
    assert len(events) == 4 - len(left)
    for _, fields in events:
        assert fields[b"k"] == b"removed"
        assert b"RELIER_DLQ_MAX_" in fields[b"r"]
    assert_index_agrees(store.redis, QUEUE)


@pytest.mark.parametrize(("age_ms", "most"), [(5_000, 0), (None, 210)])
def test_letters_that_cannot_be_removed_do_not_keep_those_behind_them(
    store: Store, age_ms: int | None, most: int
) -> None:
    stuck = 2 * letters.MOST_PURGED
    _lay_out(store, [10_000] * stuck + [9_000] * 5 + [1] * 10)
    for n in range(stuck):
        store.redis.delete(KEYS.dead_letter(QUEUE, f"id-{n}"))
        store.redis.set(KEYS.dead_letter(QUEUE, f"id-{n}"), "no hash")
    assert _retain(store, age_ms, most) == (5 if age_ms else 0)
    left = _left(store)
    assert len(left) == stuck + (10 if age_ms else 15)
    assert left[-10:] == [f"id-{n}" for n in range(stuck + 5, stuck + 15)], "the newest stay"


def test_each_queue_keeps_its_own(store: Store) -> None:
    for queue in ("one", "two"):
        _lay_out(store, [1000, 2000, 3000], queue)
    assert _retain(store, None, 2) == 2
    assert _left(store, "one") == _left(store, "two") == ["id-0", "id-1"]


def test_one_look_removes_a_bounded_number(store: Store) -> None:
    _lay_out(store, [10_000 + n for n in range(2500)])
    assert _retain(store, 5_000, 0) == 1000
    assert retain(store, Retention(5_000, 0)) == 0, "not this process's turn"
    assert _retain(store, 5_000, 0) == 1000
    assert _retain(store, 5_000, 0) == 500
    assert _left(store) == []


def test_several_that_remove_at_once_leave_as_many_as_are_to_be_kept(
    server: EmbeddedServer,
) -> None:
    address = Address.parse(server.url)
    stores = [Store(address, KEYS) for _ in range(4)]
    _lay_out(stores[0], [10_000 + n for n in range(700)])
    with ThreadPoolExecutor() as pool:
        removed = list(pool.map(lambda store: _retain(store, None, 50), stores))
    assert sum(removed) == 650
    assert _left(stores[0]) == [f"id-{n}" for n in range(50)]
    for each in stores:
        each.close()


def test_a_letter_that_was_released_meanwhile_is_not_taken(store: Store) -> None:
    """Its name may be that of a later letter by then."""
    _lay_out(store, [10_000])
    [(name, at_ms)] = reading.dead(store, QUEUE, 1)
    store.redis.zadd(KEYS.dead(QUEUE), {name: at_ms + 5})
    assert store.run(letters.purge(KEYS, QUEUE, [(name, at_ms)], "old", "r1")).letters == 0
    assert _left(store) == [name]
    found = [(name, at_ms + 5)]
    assert store.run(letters.purge(KEYS, QUEUE, found, "old", "r2")).letters == 1
    assert store.run(letters.purge(KEYS, QUEUE, found, "old", "r2")).letters == 1, "its reply"
    assert store.run(letters.purge(KEYS, QUEUE, found, "old", "r3")).letters == 0


def test_a_fleet_keeps_as_many_as_it_was_told(server: EmbeddedServer, tmp_path: Path) -> None:
    with open_morgue(server, tmp_path, {"RELIER_DLQ_MAX_COUNT": "5"}) as morgue:
        sent = [morgue.send("lookup", n) for n in range(20)]

        def removed() -> int:
            events: Any = morgue.client.xrange("rl:{bills}:events")
            return sum(fields[b"k"] == b"removed" for _, fields in events)

        wait_for(lambda: removed() == 15, 60, lambda: f"{morgue.letters()}")
        assert len([e for e in sent if e in morgue.letters()]) == 5
        assert_index_agrees(morgue.client, "bills")
