"""The ways in which Celery on Redis loses or repeats tasks, each sprung on relier.

docs/traps.md names the test of each; those that are not here stand where their fault is at home.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest
import redis
from celery import Celery
from celery.concurrency.solo import TaskPool
from celery.events.dispatcher import EventDispatcher
from celery.worker.request import create_request_cls
from kombu import Connection, Consumer, Queue

from faults.apps import labour, unwise
from faults.scene import FULL, Scene
from relier import Relier
from relier.errors import ConfigurationError
from relier.store.embedded import EmbeddedServer
from relier.worker.request import Request
from support.messages import stock_message
from support.proxy import Command, Proxy
from support.wait import wait_for

UNWISE = "faults.apps.unwise"
DEADLINE_S = 30.0


@pytest.fixture
def unwise_scene(scene: Scene) -> Scene:
    """A scene whose app has every setting that stock Celery punishes."""
    scene.app = unwise.build(scene.url)
    return scene


def send(scene: Scene, task: str, *args: Any, **options: Any) -> str:
    """Dispatch as any Celery app does, and remember the task for the account."""
    task_id: str = scene.app.tasks[task].apply_async(args, **options).id
    scene.accepted.append(task_id)
    return task_id


def passes(seconds: float) -> None:
    """Let time pass: what must not happen has had its chance then."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > until, seconds + DEADLINE_S)


# -- replies that nobody reads


def test_a_worker_dies_as_the_reply_to_its_claim_arrives(scene: Scene, proxy: Proxy) -> None:
    first = scene.worker("first", broker=proxy.url)
    scene.push("note", "before")
    scene.settle()

    def takes_something(command: Command) -> bool:
        return command.script == "claim" and scene.waiting() > 0

    answered = proxy.cut_after(1, takes_something, first.sigkill_tree)
    notes = [scene.push("note", f"n{n}") for n in range(6)]
    answered.wait(DEADLINE_S)
    assert scene.claimed(), "the server has given what no worker ever saw"
    scene.worker("second")
    scene.settle()
    assert [scene.journal.count("ran", f"n{n}") for n in range(6)] == [1] * 6
    assert [scene.returns(each) for each in notes] == [(0, 0)] * 6


@pytest.mark.slow
def test_a_worker_that_stops_takes_nothing_any_more(scene: Scene) -> None:
    first = scene.worker("first")
    for word in ("a", "b"):
        scene.push("hold", word)
    scene.began("a", "b")
    first.sigterm()
    scene.wait(lambda: "Warm shutdown" in first.log(), "the shutdown")
    # Whoever still waits for messages there would be given these, in a socket that nobody reads.
    notes = [scene.push("note", f"n{n}") for n in range(6)]
    passes(1.5)
    assert scene.waiting() == len(notes)
    first.sigkill_tree()
    scene.worker("second")
    scene.let("a", "b")
    scene.settle()
    assert [scene.journal.count("ran", f"n{n}") for n in range(6)] == [1] * 6


def test_what_there_is_no_credit_for_any_more_stays_in_its_queue(
    redis_url: str, client: redis.Redis
) -> None:
    app = Celery("credit", broker=redis_url, set_as_current=False)
    relier, queue, got = Relier(app, env="development"), Queue("credit"), []
    try:
        with app.connection() as connection:
            consumer = Consumer(
                connection.channel(),
                [queue],
                prefetch_count=2,
                callbacks=[lambda _, m: got.append(m)],
            )
            consumer.consume()
            _publish(connection, queue, "first")
            _drain_until(connection, lambda: got)
            connection.transport.cycle.on_poll_start()  # a request is under way for a second one
            consumer.qos(prefetch_count=1)
            _publish(connection, queue, "second")
            settled_s = time.monotonic() + 0.5
            _drain_until(connection, lambda: time.monotonic() > settled_s)
            assert len(got) == 1
            assert client.llen("credit") == 1, "it is nobody's yet, whoever dies"
            got[0].ack()
            _drain_until(connection, lambda: len(got) == 2)
            got[1].ack()
    finally:
        relier.membership.leave()


def _publish(connection: Connection, queue: Queue, body: str) -> None:
    connection.Producer().publish(body, routing_key=queue.name, declare=[queue])


def _drain_until(connection: Connection, condition: Any) -> None:
    def drained() -> bool:
        try:
            connection.drain_events(timeout=0.05)
        except TimeoutError:
            pass
        return bool(condition())

    wait_for(drained, DEADLINE_S)


# -- time


@pytest.mark.slow
def test_no_timeout_makes_a_task_visible_again(unwise_scene: Scene) -> None:
    """The visibility timeout is 1 s; one task runs for longer, another waits for longer."""
    scene = unwise_scene
    workers = [scene.worker(name, app=UNWISE) for name in ("first", "second")]
    send(scene, "hold", "long")
    scene.began("long")
    send(scene, "note", "late", countdown=3)
    scene.wait_journal("ran", "late")
    passes(1)
    scene.let("long")
    scene.settle()
    assert scene.journal.count("began", "long") == 1
    assert scene.journal.count("ran", "late") == 1
    assert all(worker.running for worker in workers)


def test_a_countdown_is_kept_by_the_server_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scene.worker("first")
    with monkeypatch.context() as wrong:
        # This producer's clock is an hour ahead.
        wrong.setattr("celery.app.base.datetime", Ahead)
        wrong.setattr("relier.worker.delivery.datetime", Ahead)
        scene.accepted.append(scene.app.tasks["note"].apply_async(("late",), countdown=2).id)
    [(_, due_ms)] = scene.redis.zrange(scene.keys.scheduled(scene.queue), 0, -1, withscores=True)
    assert not scene.claimed(), "no worker holds it"
    seconds, micros = scene.redis.time()
    assert due_ms - (seconds * 1000 + micros / 1000) <= 2000
    first.sigkill_tree()
    scene.worker("second")
    scene.settle()
    assert scene.journal.count("ran", "late") == 1
    [started_ms] = [
        int(str(at).partition("-")[0])
        for at, fields in scene.redis.xrange(scene.keys.events(scene.queue))
        if fields["k"] == "started"
    ]
    assert started_ms >= int(due_ms)


class Ahead(datetime):
    """A clock that is an hour ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) + timedelta(hours=1)


def test_a_stall_of_the_server_longer_than_every_heartbeat_condemns_nobody(
    own_scene: Scene, fresh_server: EmbeddedServer
) -> None:
    scene = own_scene
    env = {"RELIER_REDIS_SOCKET_TIMEOUT": "30"}
    for name in ("first", "second"):
        scene.worker(name, concurrency=1, env=env, options=["--prefetch-multiplier", "1"])
    for word in ("a", "b"):
        scene.push("hold", word)
    scene.began("a", "b")
    members = scene.members()
    os.kill(fresh_server.pid, signal.SIGSTOP)
    try:
        passes(3)  # twice the heartbeat TTL
    finally:
        os.kill(fresh_server.pid, signal.SIGCONT)
    passes(2)
    assert scene.members() == members
    scene.let("a", "b")
    scene.settle()
    assert [scene.journal.count("began", word) for word in ("a", "b")] == [1, 1]
    assert all(scene.returns(each) == (0, 0) for each in scene.accepted)


# -- messages and bindings


def test_two_deliveries_of_one_tag_end_apart(scene: Scene) -> None:
    """One publish to two queues gives two messages one delivery tag."""
    first = scene.worker("first")
    ids = {word: f"id of {word}" for word in ("a", "b")}
    for word, task_id in ids.items():
        raw = stock_message(scene.queue, task_id, word, task="hold", tag="the same")
        scene.redis.lpush(scene.queue, raw)
    scene.began("a", "b")
    scene.let("a")
    scene.wait(lambda: scene.record(ids["a"])["s"] == "e", "the first to end")
    assert len(scene.claimed()) == 1, "the second is still held"
    first.sigkill_tree()
    scene.worker("second")
    scene.began("b", times=2)
    scene.let("b")
    scene.settle(ids.values())
    assert scene.journal.count("began", "a") == 1


def test_a_message_returns_though_its_binding_is_gone(unwise_scene: Scene, proxy: Proxy) -> None:
    scene = unwise_scene
    worker = scene.worker("only", app=UNWISE, broker=proxy.url)
    for word in ("a", "b"):
        send(scene, "hold", word)
    scene.began("a", "b")
    named = {"exchange": unwise.EXCHANGE, "routing_key": scene.queue}
    for n in range(4):
        send(scene, "note", f"n{n}", **named)
    scene.wait_claimed(FULL)
    assert scene.redis.delete(f"_kombu.binding.{unwise.EXCHANGE}") == 1
    proxy.sever()
    scene.let("a", "b")
    scene.settle()
    assert [scene.journal.count("ran", f"n{n}") for n in range(4)] == [1] * 4
    assert [scene.journal.count("began", word) for word in ("a", "b")] == [1, 1]
    assert worker.running


# -- processes


@pytest.mark.slow
def test_a_lost_process_is_no_endless_loop_whatever_the_settings_say(unwise_scene: Scene) -> None:
    """`task_reject_on_worker_lost` is on: stock Celery would run the poison for ever."""
    scene = unwise_scene
    worker = scene.worker("only", app=UNWISE, env={"RELIER_MAX_RESURRECTIONS": "2"})
    poison = send(scene, "poison", "poison")
    scene.wait(lambda: poison in scene.letters(), "its dead letter")
    send(scene, "note", "after")
    scene.settle()
    assert scene.journal.count("ran", "poison") == 3
    assert scene.state(poison) == "FAILURE"
    assert scene.journal.count("ran", "after") == 1
    assert worker.running


def test_a_dead_worker_is_noticed_though_its_pool_lives_on(scene: Scene) -> None:
    """Pool processes inherit the main process's sockets, and outlive it while they work."""
    # By silence alone it would take two minutes.
    env = {"RELIER_HEARTBEAT_TTL": "120"}
    first = scene.worker("first", env=env)
    held = scene.push("hold", "orphan")
    scene.began("orphan")
    [orphan] = {entry.pid for entry in scene.journal.entries("began", "orphan")}
    scene.worker("second", env=env)
    first.sigkill()
    os.kill(orphan, 0)
    scene.began("orphan", times=2)
    scene.let("orphan")
    scene.settle()
    assert scene.returns(held) == (1, 0)
    assert scene.state(held) == "SUCCESS"


@pytest.mark.slow
def test_a_retry_that_cannot_be_published_is_published_later(own_scene: Scene) -> None:
    scene = own_scene
    scene.app = unwise.build(scene.url)
    # Nobody can beat while the server is stopped; that is no death here.
    scene.worker("only", app=UNWISE, env={"RELIER_HEARTBEAT_TTL": "30"})
    send(scene, "again", "full")
    scene.wait_journal("again", "full", 0)
    scene.redis.config_set("maxmemory", "1mb")
    scene.let("full")
    scene.wait_journal("retrying", "full")
    passes(1)
    scene.redis.config_set("maxmemory", 0)
    scene.wait_journal("again", "full", 1)

    send(scene, "again", "refused")
    scene.wait_journal("again", "refused", 0)
    scene.redis.config_set("min-replicas-to-write", 1)
    scene.let("refused")
    scene.wait_journal("retrying", "refused")
    passes(1)
    scene.redis.config_set("min-replicas-to-write", 0)
    scene.settle()
    for word in ("full", "refused"):
        assert [scene.journal.count("again", word, n) for n in (0, 1, 2)] == [1, 1, 0]
    assert {scene.state(each) for each in scene.accepted} == {"SUCCESS"}


def test_what_celery_replaces_in_a_custom_request_is_not_what_we_need() -> None:
    app = labour.build("redis://127.0.0.1:1/0")
    made = create_request_cls(Request, app.tasks["note"], TaskPool(), "host", EventDispatcher())
    ours = {name for name, value in vars(Request).items() if callable(value)}
    assert [name for name in ours if name in vars(made)] == []


# -- settings and tools


def test_the_stock_transport_cannot_come_back_by_a_setting(unwise_scene: Scene) -> None:
    app = Celery("reverted", broker=unwise_scene.url, set_as_current=False)
    app.conf.broker_transport = "redis"
    with pytest.raises(ConfigurationError, match="unset broker_transport"):
        Relier(app)
    # Set later, it changes nothing.
    worker = unwise_scene.worker("only", app=UNWISE, env={unwise.STOCK_TRANSPORT: "1"})
    send(unwise_scene, "note", "ran")
    unwise_scene.settle()
    assert unwise_scene.events("started") == {unwise_scene.accepted[0]: 1}
    assert worker.running


def test_replies_wait_for_no_bell(scene: Scene) -> None:
    """An idle worker waits up to 1 s for messages; who inspects it waits no longer than that."""
    worker = scene.worker("idle")
    took_s = []
    for _ in range(4):
        began_s = time.monotonic()
        answer = scene.app.control.ping(timeout=10, limit=1)
        took_s.append(time.monotonic() - began_s)
        assert answer == [{worker.hostname: {"ok": "pong"}}]
    assert min(took_s) < 0.5, "each waited for the end of a second"


def test_records_outlast_no_purge_and_messages_need_none(scene: Scene) -> None:
    for n in range(4):
        scene.push("note", f"purged {n}")
    assert scene.app.control.purge() == 4
    records = list(scene.redis.scan_iter("rl:task:*"))
    assert len(records) == 4
    assert min(scene.redis.pttl(each) for each in records) > 0, "they go by themselves"
    kept = [scene.push("note", f"kept {n}") for n in range(4)]
    scene.redis.delete(*scene.redis.scan_iter("rl:task:*"))
    scene.worker("only")
    for n in range(4):
        scene.wait_journal("ran", f"kept {n}")
    scene.settle(kept)
    assert scene.journal.count("ran") == 4
