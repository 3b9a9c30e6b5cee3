"""Orders about one task reach that task, and none that only names it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner

from relier import Relier, rl_task
from relier.cli.main import rl
from relier.ops import history, orders
from relier.ops.following import Follower
from relier.ops.orders import Cancelled
from relier.protocol.envelope import Keyring
from relier.protocol.identity import Claim
from relier.store import letters, running
from relier.store.address import Address
from relier.store.broker import Broker
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from support.bench import Bench
from support.messages import stock_message
from support.wait import wait_for

QUEUE, KEYS = "orders", Keys()


def _note(word: str) -> str:
    return word


@pytest.fixture
def note(server: EmbeddedServer) -> Iterator[Any]:
    app = Celery("orders", broker=server.url, backend=server.url, set_as_current=False)
    app.conf.task_default_queue = QUEUE
    Relier(app)
    yield rl_task(name="note", app=app, shared=False)(_note)
    app.close()


@pytest.fixture
def bench(server: EmbeddedServer) -> Iterator[Bench]:
    store = Store(Address.parse(server.url), KEYS)
    made = Bench(store)
    made.redis.hset(KEYS.worker("w"), "stops", 1)
    yield made
    store.close()


def test_a_task_that_names_another_is_not_hastened_in_its_place(note: Any) -> None:
    broker: Broker = note.app.relier.broker
    redis: Any = broker.store.redis
    waits = note.push("waits").id
    later = note.apply_async((waits,), countdown=600, parent_id=waits, root_id=waits).id
    [(_, due_ms)] = redis.zrange(KEYS.scheduled(QUEUE), 0, -1, withscores=True)

    cancelled = orders.cancel(broker.store, waits)
    assert cancelled is not None
    assert cancelled.state == "queued"
    retried = orders.retry(broker.store, waits, broker.keyring)
    assert retried is not None
    assert not retried.hastened
    assert redis.zrange(KEYS.scheduled(QUEUE), 0, -1, withscores=True)[0][1] == due_ms

    retried = orders.retry(broker.store, later, broker.keyring)
    assert retried is not None
    assert retried.hastened


def test_of_several_dead_letters_of_a_task_the_newest_lives_again(note: Any) -> None:
    store = note.app.relier.broker.store
    redis: Any = store.redis
    redis.sadd(KEYS.queues, QUEUE)
    for at_ms, name in ((1000, "a"), (2000, "a~w-1")):
        fields = letters.fields_of({"reason": "failed"})
        message = "|" + stock_message(QUEUE, "a", at_ms, task="note")
        redis.hset(
            KEYS.dead_letter(QUEUE, name), items=["parcel", message, "at_ms", at_ms, *fields]
        )
        redis.zadd(KEYS.dead(QUEUE), {name: at_ms})

    retried = orders.retry(store, "a", Keyring())
    assert retried is not None
    assert retried.release is not None
    assert (retried.release.letter_id, retried.release.released) == ("a~w-1", True)
    assert redis.zrange(KEYS.dead(QUEUE), 0, -1) == [b"a"]


def test_a_run_that_was_ordered_to_stop_and_ends_by_itself_is_not_called_stopped(
    bench: Bench,
) -> None:
    def ordered(task: str) -> tuple[Claim, Cancelled]:
        claim = bench.begin(task, "one", "")
        found = orders.cancel(bench.store, task, terminate=True)
        assert found is not None
        assert found.ordered
        return claim, found

    claim, found = ordered("a")
    bench.store.run(running.finish(KEYS, claim, "a", "SUCCESS", None))
    assert orders.end_of(bench.store, found) == "SUCCESS"
    claim, found = ordered("b")
    bench.store.run(running.commit(KEYS, claim, "b", "FAILURE", b"outcome"))
    bench.store.run(running.ack(KEYS, claim, "b"))
    assert orders.end_of(bench.store, found) == "FAILURE"
    claim, found = ordered("c")
    assert orders.end_of(bench.store, found) == ""
    bench.store.run(running.condemn(KEYS, claim, "c", "revoked", b"outcome", "REVOKED"))
    assert orders.end_of(bench.store, found) == orders.STOPPED
    assert bench.redis.hmget(KEYS.worker("w"), "done", "failed", "revoked") == [b"1", b"1", b"1"]


def test_cancel_says_that_a_task_succeeded_before_it_was_stopped(
    bench: Bench, server: EmbeddedServer
) -> None:
    claim = bench.begin("a", "one", "")
    asked = ["tasks", "cancel", "a", "--terminate", "--url", server.url]
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(CliRunner().invoke, rl, asked)
        wait_for(lambda: bench.redis.hexists(KEYS.worker("w"), "stop"), 10)
        bench.store.run(running.finish(KEYS, claim, "a", "SUCCESS", None))
        result = done.result()
    assert (result.exit_code, result.output) == (
        1,
        "a ended by itself (SUCCESS) before it could be stopped.\n",
    )


def test_following_a_task_without_a_queue_waits_for_nothing(bench: Bench) -> None:
    bench.redis.hset(KEYS.task("a"), "x", "1")
    follower = Follower(bench.store, "a")
    assert [*follower.so_far(), *follower.coming()] == []


def test_a_history_is_cut_into_lines_where_it_was_joined(bench: Bench) -> None:
    cells = ["1-0", "dead", "one", "w", "name", "1", "1", "1", "split\u2028here\u0085or not"]
    [event] = history.read("\t".join(cells) + "\n", "a")
    assert event.detail == cells[-1]
