"""Stock Celery on the other side: its producers, its workers, its tools."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import TaskRevokedError

from integration.apps import stock
from integration.apps.kitchen import make_app
from relier.store.embedded import EmbeddedServer
from support.kitchen import RESULT_S, Kitchen, open_kitchen
from support.settled import assert_settled, leftovers
from support.wait import wait_for
from support.worker import Worker

REPLY_S = 5.0


@pytest.fixture(scope="module")
def kitchen(
    session_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kitchen]:
    folder = tmp_path_factory.mktemp("stock")
    with open_kitchen(session_server, folder, options=("-E",)) as running:
        yield running


@pytest.fixture
def stock_app(kitchen: Kitchen, session_server: EmbeddedServer) -> Any:
    return stock.make_app(session_server.url)


def test_a_stock_producer(kitchen: Kitchen, stock_app: Any) -> None:
    results = [stock_app.tasks["add"].delay(n, 1) for n in range(5)]
    assert [result.get(RESULT_S) for result in results] == [1, 2, 3, 4, 5]
    assert kitchen.client.hexists(f"rl:task:{results[0].id}", "st"), "it ran without a start"


def test_a_stock_producer_with_an_eta(kitchen: Kitchen, stock_app: Any) -> None:
    word = kitchen.word()
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    result = stock_app.tasks["write"].apply_async((word,), eta=soon)
    wait_for(lambda: kitchen.client.zcard("rl:{celery}:scheduled"), RESULT_S)
    assert not kitchen.journal.count("write", word), "it was held in Redis, not run"
    result.get(RESULT_S)
    assert kitchen.journal.count("write", word) == 1


def test_stock_canvas(kitchen: Kitchen, stock_app: Any) -> None:
    add = stock_app.tasks["add"]
    assert (add.s(1, 2) | add.s(3)).delay().get(RESULT_S) == 6


def test_inspect(kitchen: Kitchen, tmp_path: Path) -> None:
    name = kitchen.worker.hostname
    inspect = kitchen.app.control.inspect([name], timeout=REPLY_S)
    assert inspect.ping() == {name: {"ok": "pong"}}
    go = tmp_path / "go"
    running = kitchen.tasks["hold"].push(str(go))
    wait_for(lambda: kitchen.journal.count("hold", go), RESULT_S)
    assert [task["id"] for task in inspect.active()[name]] == [running.id]
    go.touch()
    running.get(RESULT_S)
    assert inspect.stats()[name]["total"]["hold"] >= 1
    assert {queue["name"] for queue in inspect.active_queues()[name]} == {"celery", "second"}
    assert "add" in inspect.registered()[name]
    assert inspect.conf()[name]


def test_revoke_before_the_start(kitchen: Kitchen) -> None:
    word = kitchen.word()
    late = kitchen.tasks["write"].apply_async((word,), countdown=0.5)
    kitchen.app.control.revoke(late.id, reply=True, destination=[kitchen.worker.hostname])
    with pytest.raises(TaskRevokedError):
        late.get(RESULT_S)
    assert not kitchen.journal.count("write", word)


def test_revoke_with_terminate(kitchen: Kitchen, tmp_path: Path) -> None:
    path = tmp_path / "never"
    running = kitchen.tasks["hold"].push(str(path))
    wait_for(lambda: kitchen.journal.count("hold", path), RESULT_S)
    kitchen.app.control.revoke(running.id, terminate=True, signal="SIGKILL")
    with pytest.raises(TaskRevokedError):
        running.get(RESULT_S)
    assert kitchen.journal.count("hold", path) == 1
    assert kitchen.tasks["add"].push(1, 1).get(RESULT_S) == 2


def test_events(kitchen: Kitchen) -> None:
    seen: list[str] = []
    with kitchen.app.connection_for_read() as connection:
        receiver = kitchen.app.events.Receiver(
            connection, handlers={"*": lambda event: seen.append(event["type"])}
        )
        listening = threading.Thread(target=receiver.capture, kwargs={"limit": None})
        listening.start()
        try:
            # The receiver asks for heartbeats as soon as it listens.
            wait_for(lambda: "worker-heartbeat" in seen, RESULT_S)
            kitchen.tasks["add"].push(1, 2).get(RESULT_S)
            wait_for(lambda: "task-succeeded" in seen, RESULT_S)
        finally:
            receiver.should_stop = True
            listening.join(RESULT_S)
    assert "task-received" in seen
    assert "task-started" in seen


def test_a_stock_worker_consumes_what_relier_sends(
    fresh_server: EmbeddedServer, tmp_journal: Any, tmp_path: Path
) -> None:
    app = make_app(fresh_server.url, fresh_server.url)
    env = {"STOCK_BROKER": fresh_server.url, **tmp_journal.env}
    with Worker("integration.apps.stock", env=env, log_dir=tmp_path):
        assert app.tasks["add"].push(1, 2).get(RESULT_S) == 3
        assert app.tasks["add"].apply_async((1, 2), priority=3).get(RESULT_S) == 3
        assert (app.tasks["add"].s(1, 2) | app.tasks["add"].s(3)).delay().get(RESULT_S) == 6
        assert [r.get(RESULT_S) for r in app.tasks["add"].push_many([(1, 1), (2, 2)])] == [2, 4]
    with redis.Redis.from_url(fresh_server.url) as client:
        assert_settled(client)


def test_purge(fresh_server: EmbeddedServer) -> None:
    app = make_app(fresh_server.url, fresh_server.url)
    app.tasks["add"].push(1, 2)
    app.tasks["add"].apply_async((1, 2), countdown=60)
    app.tasks["add"].apply_async((1, 2), priority=6)
    assert app.control.purge() == 3
    with redis.Redis.from_url(fresh_server.url) as client:
        assert not leftovers(client)
