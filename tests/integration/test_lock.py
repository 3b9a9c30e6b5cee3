"""A guarded block succeeds once for its key, inside tasks and outside of them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest
import redis
from celery import Celery

from relier import Relier, idempotency_lock
from relier.errors import ConfigurationError, IdempotencyInFlightError, StaleFenceError
from relier.store.embedded import EmbeddedServer
from support.kitchen import RESULT_S, Kitchen
from support.wait import wait_for

SOON_S = 20.0


@pytest.fixture
def app(server: EmbeddedServer) -> Celery:
    app = Celery("locks", broker=server.url, set_as_current=False)
    Relier(app, env="development", heartbeat_ttl_s=0.5)
    redis.Redis.from_url(server.url).flushall()
    return app


def test_a_result_answers_for_later_uses(app: Celery) -> None:
    with idempotency_lock("pay", app=app) as lock:
        assert (lock.already_executed, lock.cached_result) == (False, None)
        lock.set_result({"paid": [1, 2]})
    with idempotency_lock("pay", app=app) as lock:
        assert (lock.already_executed, lock.cached_result) == (True, {"paid": [1, 2]})
        with pytest.raises(ConfigurationError, match="has a result already"):
            lock.set_result(2)
    with idempotency_lock("other", app=app) as lock:
        assert not lock.already_executed


def test_an_exception_or_no_result_frees_the_key(app: Celery) -> None:
    def fail() -> None:
        with idempotency_lock("pay", app=app) as lock:
            lock.set_result(1)
            raise ValueError("oh")

    with pytest.raises(ValueError, match="oh"):
        fail()
    with idempotency_lock("pay", app=app) as lock:
        assert not lock.already_executed
    again = idempotency_lock("pay", app=app, wait=False)
    for _ in range(2):
        with again as lock:
            assert not lock.already_executed


def test_a_result_lasts_for_its_ttl(app: Celery) -> None:
    with idempotency_lock("pay", ttl=0.3, app=app) as lock:
        lock.set_result(1)

    def is_free() -> bool:
        with idempotency_lock("pay", app=app) as lock:
            return not lock.already_executed

    wait_for(is_free, SOON_S, "the result to expire")


async def test_one_of_many_coroutines_runs(app: Celery) -> None:
    ran = []

    async def use() -> object:
        async with idempotency_lock(key="pay", ttl=60, app=app) as lock:
            if not lock.already_executed:
                ran.append(1)
                await asyncio.sleep(0.1)
                lock.set_result("once")
                return "once"
            return lock.cached_result

    assert await asyncio.gather(*(use() for _ in range(20))) == ["once"] * 20
    assert len(ran) == 1


def test_one_of_many_threads_runs_and_a_lease_outlives_its_length(app: Celery) -> None:
    entered, release = threading.Event(), threading.Event()
    seen: list[Any] = []

    def own() -> None:
        with idempotency_lock("pay", app=app) as lock:
            entered.set()
            release.wait(SOON_S)
            lock.set_result("mine")

    def wait() -> None:
        with idempotency_lock("pay", app=app) as lock:
            seen.append(lock.cached_result)

    owner = threading.Thread(target=own)
    owner.start()
    assert entered.wait(SOON_S)
    waiting = [threading.Thread(target=wait) for _ in range(5)]
    for thread in waiting:
        thread.start()
    with pytest.raises(IdempotencyInFlightError, match="another runs"):
        idempotency_lock("pay", app=app, wait=False).__enter__()
    owner.join(1.5)  # three times its lease
    assert not seen
    release.set()
    for thread in (owner, *waiting):
        thread.join(SOON_S)
    assert seen == ["mine"] * 5


def test_the_lease_of_a_killed_process_ends(app: Celery, server: EmbeddedServer) -> None:
    program = (
        "import os, signal\n"
        "from celery import Celery\n"
        "from relier import Relier, idempotency_lock\n"
        f"app = Celery(broker={server.url!r})\n"
        "Relier(app, env='development', heartbeat_ttl_s=0.5)\n"
        "with idempotency_lock('pay', app=app):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert died.returncode == -9
    with idempotency_lock("pay", app=app) as lock:
        assert not lock.already_executed


def test_a_lock_that_was_lost_keeps_nothing(app: Celery, server: EmbeddedServer) -> None:
    def lose() -> None:
        with idempotency_lock("pay", app=app) as lock:
            lock.set_result(1)
            client = redis.Redis.from_url(server.url)
            [key] = client.keys("rl:lock:*")
            client.hset(key, "t", "another")

    with pytest.raises(StaleFenceError, match="was not ours"):
        lose()
    with pytest.raises(ConfigurationError, match="needs an app under Relier"):
        idempotency_lock("pay", app=Celery(set_as_current=False))
    with pytest.raises(ConfigurationError, match="more than 0"):
        idempotency_lock("pay", ttl=0, app=app)


@pytest.mark.parametrize("name", ["locked", "alocked"])
def test_in_tasks(kitchen: Kitchen, name: str) -> None:
    word = kitchen.word()
    task = kitchen.tasks[name]
    results = {task.push(word).get(RESULT_S) for _ in range(3)}
    assert results == {f"{word} 1"}
    assert kitchen.journal.count("locked", word) == 1


def test_a_task_cannot_wait_for_itself(kitchen: Kitchen) -> None:
    with pytest.raises(IdempotencyInFlightError, match="this very task"):
        kitchen.tasks["locked_twice"].push(kitchen.word()).get(RESULT_S)


def test_a_killed_task_frees_its_lock(kitchen: Kitchen) -> None:
    if not kitchen.worker.children():
        pytest.skip("its worker would go with it")
    word = kitchen.word()
    assert kitchen.tasks["locked_and_killed"].push(word).get(RESULT_S) == f"{word} 2"
    assert not [key for key in kitchen.client.keys("rl:lock:*") if kitchen.client.hget(key, "c")]
