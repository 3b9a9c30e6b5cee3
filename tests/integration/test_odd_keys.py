"""Idempotent tasks beside keys that are not what they should be, or have expired."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.exceptions import ResponseError

from relier import idempotency_lock, rl_task
from relier.errors import ConfigurationError
from relier.ops import forgetting as forgetting_questions
from relier.store import forgetting, locking, reaping, running
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.running import Kept
from support.bench import HOUR_MS, KEY, KEYS, Bench


@pytest.fixture
def bench(server: EmbeddedServer) -> Iterator[Bench]:
    store = Store(Address.parse(server.url), KEYS)
    yield Bench(store)
    store.close()


@pytest.mark.parametrize("step", ["finish", "commit"])
def test_a_list_of_another_type_costs_nobody_else_a_task(bench: Bench, step: str) -> None:
    owner = bench.begin("a", "one")
    bench.duplicate("b", "two")
    bench.redis.set("two", "not a list")
    kept = Kept(b"result", HOUR_MS)
    if step == "finish":
        assert bench.store.run(running.finish(KEYS, owner, "a", "SUCCESS", None, kept))
        assert bench.redis.hget(KEYS.task("a"), "s") == b"e"
    else:
        assert bench.store.run(running.commit(KEYS, owner, "a", "SUCCESS", b"outcome", kept))
        assert bench.store.run(running.ack(KEYS, owner, "a"))
    assert bench.redis.hget(KEYS.idempotency(KEY), "v") == b"result"
    assert not bench.sweep("one", "two"), "it is still parked"
    bench.redis.delete("two")
    assert bench.sweep("one", "two")
    assert bench.start(bench.claim("two"), "b").done == b"result"


def test_a_result_that_redis_refuses_does_not_end_its_task(bench: Bench) -> None:
    claim = bench.begin("a", "one")
    for ttl_s in (-1, 10**17):
        result = running.StoredResult("result", ttl_s, "value")
        with pytest.raises(ResponseError, match="invalid expire"):
            bench.store.run(running.finish(KEYS, claim, "a", "SUCCESS", result))
    result = running.StoredResult("result", 60, "value")
    assert bench.store.run(running.finish(KEYS, claim, "a", "SUCCESS", result))
    assert bench.redis.get("result") == b"value"


def test_a_start_asked_again_does_not_run_beside_the_keys_owner(bench: Bench) -> None:
    first = bench.begin("a", "one")
    bench.push("b", "one")
    bench.push("c", "one")
    bench.store.run(running.finish(KEYS, first, "a", "SUCCESS", None, Kept(b"result", HOUR_MS)))
    second = bench.claim("one")
    third = bench.claim("one")
    assert bench.start(second, "b").done == b"result"
    # The reply was lost; until it is asked again the result expires, and another takes the key.
    bench.redis.delete(KEYS.idempotency(KEY))
    assert bench.start(third, "c").verdict == "run"
    assert bench.start(second, "b").verdict == "parked"
    bench.store.run(running.finish(KEYS, third, "c", "SUCCESS", None, Kept(b"later", HOUR_MS)))
    again = bench.claim("one")
    assert bench.start(again, "b").done == b"later"


def test_a_start_asked_again_takes_a_key_that_is_free_by_now(bench: Bench) -> None:
    first = bench.begin("a", "one")
    bench.push("b", "one")
    bench.store.run(running.finish(KEYS, first, "a", "SUCCESS", None, Kept(b"result", HOUR_MS)))
    second = bench.claim("one")
    assert bench.start(second, "b").done == b"result"
    bench.redis.delete(KEYS.idempotency(KEY))
    assert bench.start(second, "b").verdict == "run"
    bench.duplicate("c", "one")


def test_more_wait_for_a_key_than_one_step_wakes(bench: Bench) -> None:
    owner, many = bench.begin("a", "one"), 1_200
    for number in range(many):
        bench.duplicate(f"b{number}", "two")
    kept = Kept(b"result", HOUR_MS)
    told = bench.store.run(running.finish(KEYS, owner, "a", "SUCCESS", None, kept))
    assert told == running.MORE_PARKED
    assert 0 < bench.redis.llen("two") < many
    sweep = reaping.sweep(KEYS, KEYS.idempotency(KEY))
    while (said := bench.store.run(sweep)) == "more":
        pass
    assert said == "done"
    # They go to the head a part at a time, each in its order.
    waiting = [
        int(raw.removeprefix(b"raw b")) for raw in reversed(bench.redis.lrange("two", 0, -1))
    ]
    assert waiting == [*range(1_000, 1_200), *range(500, 1_000), *range(500)]


def test_a_result_that_calls_wait_for_is_not_forgotten(bench: Bench) -> None:
    owner = bench.begin("a", "one")
    bench.duplicate("b", "two")
    bench.redis.set("two", "not a list")
    kept = Kept(b"result", HOUR_MS)
    bench.store.run(running.finish(KEYS, owner, "a", "SUCCESS", None, kept))
    results = forgetting.forget("idem", [KEYS.idempotency(KEY)], "results")
    assert [bench.store.run(results), bench.store.run(results)] == [["owned"], ["owned"]]
    bench.redis.delete("two")
    assert bench.sweep("one", "two")
    assert bench.start(bench.claim("two"), "b").done == b"result"
    assert bench.store.run(results) == ["result"]


def test_letting_go_of_many_keys_wakes_some_hundreds_at_a_time(bench: Bench) -> None:
    names = [KEYS.idempotency(f"pay:{number}") for number in range(3)]
    for number, name in enumerate(names):
        orphan = {"w": "gone", "c": "1", "q": "one", "p:one": "1"}
        bench.redis.hset(name, mapping=orphan)
        bench.redis.rpush(f"rl:{{one}}:parked:pay:{number}", *["|raw"] * 400)
    forget = forgetting.forget("idem", names, "orphans")
    assert bench.store.run(forget) == ["orphan", "again", "again"]
    assert bench.redis.llen("one") == 500
    found = forgetting_questions.purge(bench.store)
    assert (found.owned, found.orphans) == (0, 2)
    assert bench.redis.llen("one") == 1_200


def test_a_task_of_a_stock_producer_that_was_revoked_before_it_came(bench: Bench) -> None:
    assert bench.store.run(running.revoke(KEYS, "a"))
    bench.redis.lpush("one", "raw a")
    started = bench.start(bench.claim("one"), "a")
    assert (started.verdict, started.revoked) == ("run", "revoked")


def test_leaving_a_lock_says_the_same_when_asked_again(bench: Bench) -> None:
    def lock(token: str) -> str:
        return bench.store.run(locking.lock(KEYS, "pay", token, HOUR_MS, None)).verdict

    def unlock(token: str) -> bool:
        return bench.store.run(locking.unlock(KEYS, "pay", token, b"", HOUR_MS, None))

    assert lock("first") == "mine"
    assert [unlock("first"), unlock("first")] == [True, True]
    # A renewal that was under way when the block ended must not take the key again.
    assert lock("first") == "stale"
    assert lock("second") == "mine"
    assert lock("third") == "busy"
    assert unlock("second")


def test_a_task_of_a_worker_that_is_being_reaped_guards_nothing(bench: Bench) -> None:
    one, two = bench.begin("a", "one", "pay:1"), bench.begin("b", "one", "pay:2")

    def lock(name: str, token: str) -> str:
        return bench.store.run(locking.lock(KEYS, name, token, HOUR_MS, one)).verdict

    def unlock(token: str) -> bool:
        return bench.store.run(locking.unlock(KEYS, "pay", token, b"paid", HOUR_MS, one))

    assert lock("pay", "first") == "mine"
    # A first batch: it marks the worker, and takes the younger claim.
    rules = reaping.ReapRules(5, 15, 1, 0, "", b"", b"")
    suspect = reaping.Suspect("w", "", "")
    assert bench.store.run(reaping.reap(KEYS, suspect, ["one"], "dead", rules)).status == "more"
    claims = KEYS.claims("one", "w")
    assert bench.redis.hexists(claims, one.number), "it has still to be moved"
    assert not bench.redis.hexists(claims, two.number)
    assert lock("other", "second") == "stale"
    assert lock("pay", "first") == "stale", "a renewal, too"
    assert not unlock("first")
    assert bench.redis.hget(KEYS.lock("pay"), "v") is None
    assert not bench.redis.exists(KEYS.lock("other"))


@pytest.mark.parametrize("ttl", [float("inf"), float("nan"), 1e18])
def test_a_ttl_that_redis_cannot_keep_is_refused(ttl: float) -> None:
    with pytest.raises(ConfigurationError, match="idempotency_ttl"):
        rl_task(idempotent=True, idempotency_ttl=ttl)
    with pytest.raises(ConfigurationError, match="10 years"):
        idempotency_lock("pay", ttl=ttl)
