"""Orders about one task reach that task, and none that only names it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from relier import Relier, rl_task
from relier.ops import orders
from relier.protocol.envelope import Keyring
from relier.store import letters
from relier.store.broker import Broker
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from support.messages import stock_message

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
