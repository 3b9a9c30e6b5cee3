"""Messages, arguments and workers that are not as they should be: each gets its answer."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import EncodeError

from faults.apps import labour
from faults.scene import SOON_S, Scene
from relier.errors import (
    ConfigurationError,
    PayloadError,
    RedisConnectionError,
    RedisFullError,
    UnsupportedServerError,
)
from relier.store.embedded import EmbeddedServer
from relier.worker.refusal import MOST_DEFERRALS
from support import redis6
from support.proxy import Proxy
from support.redis6 import Redis6

ODD_QUEUE = "odd"
TEN_MB = 10 * 1024 * 1024
TIMEOUT_S = 0.5
ONE_AT_A_TIME = ["--prefetch-multiplier", "1"]
SLACK_S = 2.0
"""What a loaded machine may add to a timeout."""


@pytest.fixture(scope="module")
def listening(
    session_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A scene with one worker, which no message may harm: all tests here share it."""
    with ExitStack() as stack:
        with redis.Redis.from_url(session_server.url) as admin:
            admin.flushall()
        scene = Scene(session_server.url, tmp_path_factory.mktemp("bad-input"), stack)
        worker = scene.only_worker = scene.worker("only", queues=[scene.queue, ODD_QUEUE])
        yield scene
        assert worker.running
        assert "Connection to broker lost" not in worker.log()
        assert len(scene.members()) == 1


def message(task_id: str, *, without: str = "", **changes: Any) -> dict[str, Any]:
    """Make a message of the task `note` as kombu does, less a property, with parts changed."""
    properties = {
        "correlation_id": task_id,
        "delivery_info": {"exchange": "", "routing_key": "labour"},
        "delivery_tag": f"tag of {task_id}",
        "body_encoding": "base64",
    }
    return {
        "body": encoded([[task_id], {}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "note", "id": task_id},
        "properties": {name: value for name, value in properties.items() if name != without},
        **changes,
    }


def encoded(body: Any) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


NO_MESSAGES = {
    "not JSON": b"{not json",
    "no text": b"\xff\xfe\x00",
    "no object": b"[1, 2]",
    "empty": b"",
    "deeply nested": b"[" * 100_000,
}
UNREADABLE: dict[str, dict[str, Any]] = {
    "no properties": {"properties": None},
    "no delivery_tag": {"without": "delivery_tag"},
    "no delivery_info": {"without": "delivery_info"},
    "no task": {"headers": {"id": "no task"}},
    "no headers": {"headers": None},
    "odd headers": {"headers": ["task"]},
    "odd eta": {"headers": {"task": "note", "id": "odd eta", "eta": "tomorrow"}},
    "odd retries": {"headers": {"task": "note", "id": "odd retries", "retries": "many"}},
    "odd id": {"headers": {"task": "note", "id": {"of": "another"}}},
    "unknown content type": {"content-type": "application/x-odd"},
    "unknown compression": {
        "headers": {"task": "note", "id": "unknown compression", "compression": "odd"}
    },
    "unknown body encoding": {
        "properties": {
            "delivery_tag": "odd",
            "delivery_info": {"exchange": "", "routing_key": "labour"},
            "body_encoding": "odd",
        }
    },
    "body not base64": {"body": "%%%"},
    "body not JSON": {"body": base64.b64encode(b"{").decode()},
    "body no triple": {"body": encoded(7)},
    "body of two": {"body": encoded([[], {}])},
    "no body": {"body": None},
}


def _kept(scene: Scene) -> dict[bytes, dict[bytes, bytes]]:
    """Return the dead letters by the raw message that each keeps."""
    return {letter[b"parcel"].removeprefix(b"|"): letter for letter in scene.letters_raw().values()}


def test_what_cannot_be_read_is_kept_raw_and_harms_nobody(listening: Scene) -> None:
    scene = listening
    unreadable = dict(NO_MESSAGES)
    for name, changes in UNREADABLE.items():
        unreadable[name] = json.dumps(message(name, **changes)).encode()
    for raw in unreadable.values():
        scene.redis.lpush(scene.queue, raw)
    scene.settle([scene.push("note", "after")])
    kept = _kept(scene)
    assert [name for name, raw in unreadable.items() if raw not in kept] == []
    letters = [kept[raw] for raw in unreadable.values()]
    assert {letter[b"reason"] for letter in letters} == {b"unreadable"}
    assert all(letter[b"error"] for letter in letters)
    assert {entry.fields[1] for entry in scene.journal.entries("ran")} == {"after"}


def test_an_odd_encoding_is_no_reason_when_the_body_can_be_read(listening: Scene) -> None:
    listening.redis.lpush(
        listening.queue, json.dumps(message("odd encoding", **{"content-encoding": "utf-99"}))
    )
    listening.wait_journal("ran", "odd encoding")


def test_a_message_that_names_no_exchange_runs(listening: Scene) -> None:
    raw = message("no exchange")
    raw["properties"]["delivery_info"] = {}
    listening.redis.lpush(listening.queue, json.dumps(raw))
    listening.wait_journal("ran", "no exchange")
    listening.settle(["no exchange"])


def test_letters_of_one_id_do_not_displace_each_other(listening: Scene) -> None:
    twins = [json.dumps(message("twin", body=f"%{n}")) for n in range(2)]
    for raw in twins:
        listening.redis.lpush(listening.queue, raw)
    listening.wait(lambda: all(raw.encode() in _kept(listening) for raw in twins), "both letters")


def test_a_key_of_another_type_stops_its_own_queue_only(listening: Scene) -> None:
    scene = listening
    scene.redis.set(ODD_QUEUE, "not a list")
    scene.redis.script_flush()
    ids = [scene.push("note", f"beside {n}") for n in range(20)]
    scene.settle(ids)
    with pytest.raises(ConfigurationError, match=r"WRONGTYPE.* remove the key"):
        scene.app.tasks["note"].apply_async(("odd",), queue=ODD_QUEUE)
    worker = scene.only_worker
    scene.wait(lambda: f"needs a list at {ODD_QUEUE}" in worker.log(), "word of the odd key")
    scene.redis.delete(ODD_QUEUE)
    scene.app.tasks["note"].apply_async(("odd",), queue=ODD_QUEUE)
    scene.wait_journal("ran", "odd")
    assert [scene.journal.count("ran", f"beside {n}") for n in range(20)] == [1] * 20


@pytest.mark.slow
def test_a_bell_of_another_type_stops_its_own_queue_only(listening: Scene) -> None:
    scene, bell = listening, listening.keys.bell(ODD_QUEUE)
    scene.redis.set(bell, "no bell")
    scene.redis.lpush(ODD_QUEUE, json.dumps(message("of the odd bell")))
    scene.wait(lambda: f"needs a zset at {bell}" in scene.only_worker.log(), "word of the bell")
    ids = [scene.push("note", f"beside the bell {n}") for n in range(20)]
    scene.settle(ids)
    scene.redis.delete(bell)
    scene.wait_journal("ran", "of the odd bell")
    assert [scene.journal.count("ran", f"beside the bell {n}") for n in range(20)] == [1] * 20


def test_letters_that_have_no_place_end_no_worker(listening: Scene) -> None:
    scene, dead = listening, listening.keys.dead(ODD_QUEUE)
    scene.redis.set(dead, "no letters")
    raw = json.dumps(message("of no place", body="%%%"))
    scene.redis.lpush(ODD_QUEUE, raw, "{not json")
    scene.wait(lambda: f"needs a zset at {dead}" in scene.only_worker.log(), "word of the key")
    scene.settle([scene.push("note", "beside the letters")])
    scene.redis.delete(dead)
    scene.wait(lambda: scene.redis.zcard(dead) == 2, "both letters")


def test_an_unregistered_task_waits_for_a_worker_that_knows_it(listening: Scene) -> None:
    scene = listening
    task_id = scene.app.send_task("nobody", queue=scene.queue).id
    scene.wait(lambda: scene.events("deferred")[task_id], "the first deferral")
    assert scene.redis.zcard(scene.keys.scheduled(scene.queue)) == 1
    assert f"does not know the task 'nobody' of message {task_id}" in scene.only_worker.log()
    # As if it had come and gone for nine minutes.
    scene.redis.hset(scene.keys.task(task_id), "u", MOST_DEFERRALS)
    scene.wait(lambda: task_id in scene.letters(), "its dead letter")
    letter = scene.letters()[task_id]
    assert letter["reason"] == "unregistered"
    assert "TaskNotRegisteredError" in letter["error"]
    assert task_id in letter["parcel"], "the message as it came"
    assert scene.record(task_id)["s"] == "d"


def test_ten_megabytes_go_through(listening: Scene) -> None:
    heavy = listening.push("weigh", "x" * TEN_MB)
    listening.settle([heavy])
    assert json.loads(listening.meta(heavy) or "")["result"] == TEN_MB


async def test_arguments_that_cannot_be_serialised_enqueue_nothing(listening: Scene) -> None:
    scene, note = listening, listening.app.tasks["note"]
    before = scene.redis.keys("rl:task:*")
    with pytest.raises(PayloadError, match="nothing was enqueued"):
        note.push(object())
    with pytest.raises(PayloadError):
        await note.apush(object())
    with pytest.raises(PayloadError):
        note.push_many(["sound", object()])
    with pytest.raises(EncodeError):
        note.delay(object())
    assert scene.redis.keys("rl:task:*") == before
    assert scene.journal.count("ran", "sound") == 0


@pytest.mark.slow
@pytest.mark.parametrize("absence", ["refuses", "stays silent"])
async def test_a_dispatch_without_redis_ends_within_the_timeout(
    absence: str, session_server: EmbeddedServer
) -> None:
    with Proxy(session_server.url) as proxy:
        if absence == "refuses":
            proxy.close()
        else:
            proxy.partition()
        note = labour.build(proxy.url, redis_socket_timeout_s=TIMEOUT_S).tasks["note"]
        began_s = time.monotonic()
        for dispatch in (note.push, note.delay):
            with pytest.raises(RedisConnectionError, match=f"{proxy.port}"):
                dispatch("nowhere")
            assert time.monotonic() - began_s < TIMEOUT_S + SLACK_S, dispatch
            began_s = time.monotonic()
        with pytest.raises(RedisConnectionError, match=f"{proxy.port}"):
            await note.apush("nowhere")
        assert time.monotonic() - began_s < TIMEOUT_S + SLACK_S


@pytest.mark.parametrize(
    ("parameter", "value", "fix"),
    [
        ("appendonly", "no", "CONFIG SET appendonly yes"),
        ("maxmemory-policy", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
    ],
)
def test_a_worker_refuses_a_server_that_would_lose_tasks(
    parameter: str, value: str, fix: str, own_scene: Scene
) -> None:
    own_scene.redis.config_set(parameter, value)
    worker = own_scene.worker("refused", wait_ready=False)
    assert worker.wait(SOON_S) != 0
    log = worker.log()
    assert fix in log
    assert log.count("Traceback") <= 1, "it says so once"
    assert not own_scene.members()


async def test_a_redis_that_is_too_old_is_refused(tmp_path: Path) -> None:
    with Redis6() as old, ExitStack() as stack:
        note = labour.build(old.url, redis_socket_timeout_s=TIMEOUT_S).tasks["note"]
        for dispatch in (note.push, note.delay, note.push_many):
            with pytest.raises(UnsupportedServerError, match=r"needs Redis 7\.0 .* Upgrade"):
                dispatch("x")
        with pytest.raises(UnsupportedServerError):
            await note.apush("x")
        worker = Scene(old.url, tmp_path, stack).worker("refused", wait_ready=False)
        assert worker.wait(SOON_S) != 0
        log = worker.log()
        assert f"the server is Redis {redis6.VERSION}; relier needs Redis 7.0" in log
        assert log.count("Traceback") <= 1, "it says so once"


def test_a_wrong_password_is_named_as_such(own_scene: Scene) -> None:
    own_scene.redis.config_set("requirepass", "right")
    url = own_scene.url.replace("redis://", "redis://:wrong@")
    note = labour.build(url, redis_socket_timeout_s=TIMEOUT_S).tasks["note"]
    for dispatch in (note.push, note.delay):
        with pytest.raises(RedisConnectionError, match="Check the user and password") as caught:
            dispatch("nowhere")
        assert "wrong@" not in str(caught.value), "a password has no place in a message"
    # The worker goes on trying, as Celery's do, and says each time why it cannot.
    worker = own_scene.worker("refused", broker=url, wait_ready=False)
    own_scene.wait(lambda: "invalid username-password pair" in worker.log(), "word of the password")
    assert "Traceback" not in worker.log()


def test_a_full_server_refuses_new_tasks_and_lets_running_ones_end(own_scene: Scene) -> None:
    scene, note = own_scene, own_scene.app.tasks["note"]
    worker = scene.worker("only")
    held = [scene.push("hold", word) for word in ("a", "b")]
    scene.began("a", "b")
    behind = [scene.push("note", f"n{n}") for n in range(10)]
    scene.redis.config_set("maxmemory", "1mb")
    for dispatch in (note.push, note.delay):
        with pytest.raises(RedisFullError, match="nothing was enqueued"):
            dispatch("refused")
    scene.let("a", "b")
    scene.settle()
    assert {scene.state(each) for each in held + behind} == {"SUCCESS"}
    scene.redis.config_set("maxmemory", "0")
    scene.push("note", "room again")
    scene.settle()
    assert scene.journal.count("ran", "refused") == 0
    assert worker.running


@pytest.mark.slow
def test_two_workers_of_one_name_are_two_workers(own_scene: Scene) -> None:
    scene = own_scene
    one = scene.worker("same", concurrency=1, options=ONE_AT_A_TIME)
    first = scene.push("hold", "first")
    scene.began("first")
    two = scene.worker("same", concurrency=1, options=ONE_AT_A_TIME)
    second = scene.push("hold", "second")
    scene.began("second")
    assert scene.record(first)["w"] == scene.member(one)
    assert scene.record(second)["w"] == scene.member(two) != scene.member(one)
    one.sigkill_tree()
    scene.wait(lambda: scene.returns(first) == (1, 0), "what the first ran to come back")
    scene.let("first", "second")
    scene.settle()
    assert scene.journal.count("began", "second") == 1
    assert scene.returns(second) == (0, 0)
    assert {scene.state(each) for each in (first, second)} == {"SUCCESS"}
