"""Trouble at the moment when it is least expected: each task still has one clear end."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Consumer, Queue

from faults.apps import labour, strange
from faults.scene import FULL, Scene
from relier import Relier
from relier.errors import ConfigurationError, RedisConnectionError
from relier.phoenix.detector import Sighting, Verdict
from relier.phoenix.reaper import bring_back
from relier.phoenix.service import Phoenix
from relier.protocol import outcome
from relier.protocol.identity import Claim, Identity
from relier.protocol.outcome import Outcome, Value
from relier.store import claiming, fleet, reaping, running
from relier.store.broker import Broker
from relier.store.embedded import EmbeddedServer
from support.servers import new_server
from support.wait import wait_for

APP: dict[str, Any] = {"app": "faults.apps.strange", "options": ["--without-mingle"]}
POOLS = ("prefork", "threads")
DEADLINE_S = 30.0


@contextmanager
def _scene(url: str, folder: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        scene = Scene(url, folder, stack)
        scene.redis.flushdb()
        scene.app = strange.build(url)
        yield scene


def _database(server: EmbeddedServer, number: int) -> str:
    return f"{server.url.removesuffix('/0')}/{number}"


@pytest.fixture(scope="module")
def distant() -> Iterator[EmbeddedServer]:
    """A server that only holds results, and may be killed."""
    with new_server() as running:
        yield running


@pytest.fixture(scope="module")
def scenes(
    session_server: EmbeddedServer,
    distant: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Scene]]:
    """A scene with one worker for each pool; what happens here may harm none of them."""
    with ExitStack() as stack:
        made = {}
        for number, pool in enumerate(POOLS, 1):
            folder = tmp_path_factory.mktemp(pool)
            scene = stack.enter_context(_scene(_database(session_server, number), folder))
            env = {strange.DISTANT: distant.url}
            scene.only_worker = scene.worker(pool, **APP, pool=pool, env=env, wait_ready=False)
            made[pool] = scene
        for scene in made.values():
            scene.only_worker.wait_ready()
        yield made
        for scene in made.values():
            assert scene.only_worker.running
            assert "Connection to broker lost" not in scene.only_worker.log()


@pytest.fixture
def scene(scenes: dict[str, Scene]) -> Scene:
    """The scene with processes."""
    return scenes["prefork"]


@pytest.fixture(params=POOLS)
def each_scene(scenes: dict[str, Scene], request: pytest.FixtureRequest) -> Scene:
    """Each pool's scene in turn."""
    return scenes[request.param]


@pytest.fixture
def app(session_server: EmbeddedServer) -> Iterator[Celery]:
    """An app in this very process, with a database to itself."""
    url = _database(session_server, 3)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    made = strange.build(url, heartbeat_ttl_s=1.0)
    yield made
    made.relier.membership.leave()


def _begin(scene: Scene, task: str, word: str, **options: Any) -> str:
    """Dispatch by Celery's own call, which knows links and limits; return the id."""
    task_id: str = scene.app.tasks[task].apply_async((word,), **options).id
    scene.accepted.append(task_id)
    return task_id


def _note(scene: Scene, *args: Any) -> Any:
    return scene.app.signature("note", args=args, immutable=bool(args))


def _states(results: Any, task_id: str) -> set[str]:
    """Return every state that a task's result was published with."""
    told = iter(lambda: results.get_message(timeout=0.1), None)
    metas = [json.loads(each["data"]) for each in told if each["type"] == "pmessage"]
    return {meta["status"] for meta in metas if meta["task_id"] == task_id}


# -- a task that had committed


def test_a_hard_limit_after_the_commit_takes_nothing_back(scene: Scene) -> None:
    word = f"{strange.STALLED}limited"
    task_id = _begin(scene, "brief", word, link=_note(scene), time_limit=1)
    # Nobody opens the gate: the limit stops the process as it sends.
    scene.wait_journal("ran", word)
    scene.settle([task_id])
    assert scene.journal.count("sending", word) == 2, "by the process that was stopped, by another"
    assert [scene.journal.count(what, word) for what in ("began", "ran")] == [1, 1]
    assert scene.state(task_id) == "SUCCESS"
    assert scene.returns(task_id) == (0, 0)


def test_revoking_a_task_that_had_committed_does_not_rewrite_its_end(scene: Scene) -> None:
    word = f"{strange.STALLED}revoked"
    with scene.redis.pubsub() as results:
        results.psubscribe("celery-task-meta-*")
        task_id = _begin(scene, "brief", word, link=_note(scene))
        scene.wait_journal("sending", word)
        scene.app.control.revoke(task_id, terminate=True, signal="SIGKILL")
        scene.wait_journal("ran", word)
        scene.settle([task_id])
        assert _states(results, task_id) == {"SUCCESS"}
    assert [scene.journal.count(what, word) for what in ("began", "ran")] == [1, 1]


def test_what_a_worker_does_not_know_is_sent_by_one_that_does(scene: Scene) -> None:
    queue, link = "mixed", scene.app.signature("note", ("from the mixed queue",), immutable=True)
    task_id = scene.app.tasks["note"].apply_async(("mixed",), queue=queue, link=link).id
    _die_after_commit(scene.app.relier.broker, queue)
    ignorant = scene.worker("ignorant", **APP, queues=[queue], env={strange.IGNORANT: "1"})
    scene.wait(lambda: "does not know" in ignorant.log(), "the ignorant to meet it")
    scene.app.control.add_consumer(queue, destination=[scene.only_worker.hostname])
    scene.wait_journal("ran", "from the mixed queue")
    scene.wait(lambda: scene.record(task_id)["s"] == "e", "its end")
    assert scene.journal.count("ran", "mixed") == 0, "its body had run"
    assert scene.state(task_id) == "SUCCESS"
    assert ignorant.log().count("does not know") < 5, "it leaves that to others for a while"
    assert ignorant.running
    ignorant.stop()


def _die_after_commit(broker: Broker, queue: str) -> None:
    """Claim the queue's one message, commit it, and be reaped as a dead worker would."""
    store, keys, worker = broker.store, broker.keys, "dead"
    store.run(claiming.hello(keys, worker, {"epoch": 1}))
    (claimed,) = store.run_once(claiming.claim(keys, worker, 1, [queue], 1, [""])).claimed
    headers = json.loads(claimed.raw)["headers"]
    who = Identity(headers["id"], headers["rl_token"], 0, headers["task"])
    assert (
        store.run(
            running.start(keys, claimed.claim, who, own_limit=None, max_resurrections=5)
        ).verdict
        == "run"
    )
    value = Value("application/json", "utf-8", b'"committed"')
    success = outcome.encode(Outcome("SUCCESS", value))
    assert store.run(running.commit(keys, claimed.claim, who.task_id, "SUCCESS", success))
    suspect = reaping.Suspect(worker, "", "")
    queues = fleet.known_queues(store)
    assert store.run(reaping.reap(keys, suspect, queues, "dead", broker.reap_rules)).replayed == 1


# -- a body that ends strangely


def test_a_task_runs_though_nobody_can_be_told_that_it_started(
    each_scene: Scene, distant: EmbeddedServer
) -> None:
    scene = each_scene
    distant.kill()
    try:
        task_id = scene.push("distant", "alone")
        scene.wait_journal("ran", "alone")
        said = f"distant[{task_id}] is committed, but what follows"
        scene.wait(lambda: said in scene.only_worker.log(), "word of the result")
    finally:
        distant.start()
    scene.settle([task_id])
    assert scene.journal.count("ran", "alone") == 1
    with redis.Redis.from_url(distant.url) as results:
        assert json.loads(results.get(f"celery-task-meta-{task_id}"))["status"] == "SUCCESS"


def test_an_error_that_is_no_text_is_an_end_like_any_other(each_scene: Scene) -> None:
    scene = each_scene
    task_id = _begin(scene, "broken", "broken", link_error=_note(scene, "errback"))
    scene.wait_journal("ran", "errback")
    scene.settle([task_id])
    assert [scene.journal.count(*each) for each in (("began", "broken"), ("ran", "errback"))] == [
        1,
        1,
    ]
    assert scene.state(task_id) == "FAILURE"
    assert "no such file" in repr(scene.app.AsyncResult(task_id).result)


def test_a_cancellation_is_a_failure(each_scene: Scene) -> None:
    scene = each_scene
    task_id = _begin(scene, "cancelled", "cancelled", link_error=_note(scene, "errback of it"))
    scene.wait_journal("ran", "errback of it")
    scene.settle([task_id])
    assert scene.journal.count("began", "cancelled") == 1
    assert scene.state(task_id) == "FAILURE"
    assert scene.returns(task_id) == (0, 0)


def test_a_coroutine_does_not_outlive_its_limit(scene: Scene) -> None:
    over = scene.push("linger", "over")
    scene.wait(lambda: scene.state(over) == "FAILURE", "its soft limit")
    visits = [scene.push("visit", word) for word in ("left", "right")]
    scene.began("left", "right")
    # Each process runs an event loop now; in one of them, what lingered could see this.
    scene.let("over")
    scene.let("left", "right")
    scene.settle([over, *visits])
    assert scene.journal.count("went on") == 0
    assert "SoftTimeLimitExceeded" in repr(scene.app.AsyncResult(over).result)


# -- hostile messages

REFUSED: dict[str, dict[str, Any]] = {
    "id null": {"id": None},
    "id true": {"id": True},
    "id number": {"id": 5},
    "id list": {"id": [1]},
    "id surrogate": {"id": "\ud800"},
    "task list": {"task": [1]},
    "task surrogate": {"task": "\ud800"},
    "retries text": {"retries": "abc"},
    "retries negative": {"retries": -1},
    "retries infinite": {"retries": 1e400},
    "nesting object": {"replaced_task_nesting": {"a": 1}},
    "timelimit text": {"timelimit": "abc"},
    "timelimit texts": {"timelimit": ["a", "b"]},
    "timelimit of three": {"timelimit": [1, 2, 3]},
    "stamps number": {"stamps": 5, "stamped_headers": 5},
    "group number": {"group": 5},
    "headers number": {"headers": 5},
    "shadow list": {"shadow": [1]},
    "root list": {"root_id": [1]},
    "eta list": {"eta": [1]},
}
BORNE: dict[str, dict[str, Any]] = {
    "token object": {"rl_token": {"a": 1}},
    "token true": {"rl_token": True},
    "argsrepr number": {"argsrepr": 5},
    "kwargsrepr list": {"kwargsrepr": [1]},
    "origin list": {"origin": [1]},
    "lang other": {"lang": "js"},
    "hostname list": {"hostname": [2]},
    "our own key": {"relier": [1, 2]},
    "args": {"args": "x"},
    "ignore_result object": {"ignore_result": {}},
}


def _hostile(word: str, changes: dict[str, Any]) -> str:
    """Make a message of `note` as kombu does, with headers changed."""
    body = base64.b64encode(json.dumps([[word], {}, {}]).encode()).decode()
    return json.dumps(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": "note", "id": f"id of {word}", **changes},
            "properties": {
                "correlation_id": word,
                "delivery_info": {"exchange": "", "routing_key": labour.QUEUE},
                "delivery_tag": f"tag of {word}",
                "body_encoding": "base64",
            },
        }
    )


def test_hostile_headers_cost_a_worker_nothing(each_scene: Scene) -> None:
    scene = each_scene
    before = set(scene.letters_raw())
    refused = {_hostile(word, changes).encode(): word for word, changes in REFUSED.items()}
    # Twice each: one lost credit could be overlooked, a worker without any cannot.
    for raw in [*refused, *refused]:
        scene.redis.lpush(scene.queue, raw)
    for word, changes in BORNE.items():
        scene.redis.lpush(scene.queue, _hostile(word, changes))
    after = scene.push("note", "after the hostile")
    for word in BORNE:
        scene.wait_journal("ran", word)
    scene.settle([after])
    new = [letter for name, letter in scene.letters_raw().items() if name not in before]
    found = Counter(refused.get(letter[b"parcel"].removeprefix(b"|")) for letter in new)
    assert found == dict.fromkeys(REFUSED, 2)
    assert {letter[b"reason"] for letter in new} == {b"unreadable"}
    _has_all_its_credit(scene)


def _has_all_its_credit(scene: Scene) -> None:
    """See a worker of two take as much as it can ever hold."""
    held = [scene.push("hold", word) for word in ("credit a", "credit b")]
    scene.began("credit a", "credit b")
    notes = [scene.push("note", f"credit {n}") for n in range(10)]
    scene.wait_claimed(FULL)
    scene.let("credit a", "credit b")
    scene.settle([*held, *notes])


# -- a server that refuses


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A scene on a server that may be reconfigured."""
    with new_server() as server, _scene(server.url, tmp_path_factory.mktemp("refusing")) as scene:
        # Silence is no death here, and only the tests look for the dead.
        env = {"RELIER_HEARTBEAT_TTL": "30", "RELIER_RESURRECTION_CHECK_INTERVAL": "60"}
        worker = scene.only_worker = scene.worker("refused", **APP, env=env)
        yield scene
        assert worker.running
        assert len(scene.members()) == 1
        assert not scene.letters()


def _refused(scene: Scene, error: str) -> int:
    """Return how often the server has refused something so."""
    found = scene.redis.info("errorstats").get(f"errorstat_{error}")
    return int(found["count"]) if found else 0


def test_a_worker_outlives_a_server_that_takes_no_writes(refusing: Scene) -> None:
    scene = refusing
    held = [scene.push("hold", word) for word in ("a", "b")]
    linked = _begin(scene, "hold", "a", link=_note(scene, "follows"))
    scene.began("a", "b")
    scene.redis.config_set("min-replicas-to-write", 1)
    began_s = time.monotonic()
    scene.let("a", "b")
    scene.wait_journal("passed", "b")
    scene.wait(
        lambda: time.monotonic() - began_s > 3 and _refused(scene, "NOREPLICAS") > 20,
        "the server to have refused for a while",
    )
    scene.redis.config_set("min-replicas-to-write", 0)
    scene.settle([*held, linked])
    scene.wait_journal("ran", "follows")
    assert [scene.journal.count("began", word) for word in ("a", "b")] == [2, 1]
    assert {scene.state(each) for each in (*held, linked)} == {"SUCCESS"}


def test_what_follows_waits_for_a_full_server(refusing: Scene) -> None:
    scene = refusing
    task_id = _begin(scene, "hold", "filling", link=_note(scene))
    scene.began("filling")
    scene.redis.config_set("maxmemory", "1mb")
    scene.let("filling")
    said = f"hold[{task_id}] is committed, but what follows"
    scene.wait(lambda: scene.only_worker.log().count(said) >= 2, "two attempts")
    assert scene.journal.count("ran", "filling") == 0
    scene.redis.config_set("maxmemory", 0)
    scene.wait_journal("ran", "filling")
    scene.settle([task_id])
    assert [scene.journal.count(what, "filling") for what in ("began", "ran")] == [1, 1]
    assert json.loads(scene.meta(task_id) or "")["result"] == "filling"


def test_an_owed_operation_that_is_refused_blocks_no_other(refusing: Scene) -> None:
    scene = refusing
    relier = Relier(Celery("owing", broker=scene.url), redis_socket_timeout_s=0.2)
    keys, membership, rules = relier.broker.keys, relier.membership, relier.broker.reap_rules
    membership.join()
    worker = membership.worker_id
    scene.redis.lpush("owed", "anything")
    (claimed,) = relier.broker.store.run_once(
        claiming.claim(keys, worker, membership.epoch, ["owed"], 1, [""])
    ).claimed
    scene.redis.set(keys.claims("spoilt", worker), "no hash")
    scene.redis.config_set("min-replicas-to-write", 1)
    for claim in (Claim(worker, "spoilt", "1"), claimed.claim):
        assert membership.debts.owe(reaping.reap_claim(keys, claim, "died", rules)) is None
    scene.redis.config_set("min-replicas-to-write", 0)
    scene.wait(lambda: scene.redis.zcard(keys.scheduled("owed")), "the second to be paid")
    scene.redis.delete(keys.claims("spoilt", worker), keys.scheduled("owed"))
    membership.leave()
    assert worker not in scene.members()


@pytest.fixture
def dead(refusing: Scene) -> Iterator[str]:
    """A worker that never beats and holds one message; it may be silent for half a second."""
    scene, broker, worker = refusing, refusing.app.relier.broker, "silent"
    broker.store.run(claiming.hello(broker.keys, worker, {"epoch": 1, "hb": 500}))
    scene.redis.lpush("orphans", "of the silent")
    broker.store.run_once(claiming.claim(broker.keys, worker, 1, ["orphans"], 1, [""]))
    yield worker
    scene.redis.delete("orphans")
    assert worker not in scene.members()


def test_silence_while_nobody_could_speak_is_no_death(refusing: Scene, dead: str) -> None:
    scene, phoenix = refusing, Phoenix(refusing.app.relier.broker)
    scene.redis.config_set("min-replicas-to-write", 1)

    def refused() -> bool:
        try:
            phoenix.look()
        except RedisConnectionError:
            return True
        return False

    wait_for(refused, DEADLINE_S, "a verdict that cannot be carried out")
    scene.redis.config_set("min-replicas-to-write", 0)
    phoenix.look()
    assert dead in scene.members(), "it had no chance to beat yet"
    wait_for(lambda: phoenix.look() or dead not in scene.members(), DEADLINE_S, "its death")


def test_silence_just_after_nobody_could_speak_is_no_death(refusing: Scene, dead: str) -> None:
    scene, phoenix = refusing, Phoenix(refusing.app.relier.broker)
    scene.redis.hset(scene.keys.worker(dead), "hb", 1000)
    phoenix.look()
    began_s = time.monotonic()
    scene.redis.config_set("min-replicas-to-write", 1)
    wait_for(lambda: time.monotonic() - began_s > 0.7, DEADLINE_S)
    with pytest.raises(RedisConnectionError):
        phoenix.look()
    scene.redis.config_set("min-replicas-to-write", 0)
    wait_for(lambda: time.monotonic() - began_s > 1.1, DEADLINE_S)
    phoenix.look()
    assert dead in scene.members(), "it had no chance to beat yet"
    wait_for(lambda: phoenix.look() or dead not in scene.members(), DEADLINE_S, "its death")


def test_a_full_server_keeps_nobody_from_being_reaped(refusing: Scene, dead: str) -> None:
    scene, phoenix = refusing, Phoenix(refusing.app.relier.broker)
    scene.redis.config_set("maxmemory", "1mb")
    try:
        wait_for(lambda: phoenix.look() or dead not in scene.members(), DEADLINE_S, "its death")
    finally:
        scene.redis.config_set("maxmemory", 0)
    assert scene.redis.lrange("orphans", 0, -1) == ["of the silent"]


# -- in this process


def test_one_that_cannot_be_reaped_keeps_nobody_from_being_reaped(app: Celery) -> None:
    broker, client = app.relier.broker, app.relier.broker.store.redis
    for worker, queue in (("aaa", "spoilt"), ("bbb", "sound")):
        broker.store.run(claiming.hello(broker.keys, worker, {"epoch": 1, "hb": 500}))
        client.lpush(queue, f"from {queue}")
        broker.store.run_once(claiming.claim(broker.keys, worker, 1, [queue], 1, [""]))
    client.set("spoilt", "somebody's cache entry")
    phoenix = Phoenix(broker)
    wait_for(lambda: phoenix.look() or client.llen("sound"), DEADLINE_S, "the second's message")
    assert client.lrange("sound", 0, -1) == [b"from sound"]
    assert client.hvals(broker.keys.claims("spoilt", "aaa")) == [b"|from spoilt"], "nothing is lost"
    client.delete("spoilt")
    wait_for(lambda: phoenix.look() or client.llen("spoilt"), DEADLINE_S, "the first's message")
    assert not client.smembers(broker.keys.workers)


def test_a_queue_that_takes_nothing_back_neither_blames_nor_holds_the_others(app: Celery) -> None:
    broker, client = app.relier.broker, app.relier.broker.store.redis
    store, keys, spoilt = broker.store, broker.keys, "spoilt"
    store.run(claiming.hello(keys, "aaa", {"epoch": 1, "hb": 500}))
    for queue in ("sound", spoilt):
        client.lpush(queue, f"from {queue}")
        harvest = store.run_once(claiming.claim(keys, "aaa", 1, [queue], 1, [""]))
    who, (claimed,) = Identity("one", "token", 0, "note"), harvest.claimed
    start = running.start(keys, claimed.claim, who, own_limit=None, max_resurrections=1)
    assert store.run(start).verdict == "run"
    client.set(spoilt, "somebody's cache entry")
    suspect, queues = reaping.Suspect("aaa", "", ""), fleet.known_queues(store)
    reap = reaping.reap(keys, suspect, queues, "dead", broker.reap_rules)
    assert [store.run(reap).status for _ in range(5)] == ["stuck"] * 5
    assert client.lrange("sound", 0, -1) == [b"from sound"]
    client.delete(spoilt)
    assert store.run(reap).status == "done"
    assert client.lrange(spoilt, 0, -1) == [b"from spoilt"]
    assert client.hget(keys.task("one"), "b") == b"1", "blamed once, for one death"


def test_a_queue_that_is_new_since_its_owner_was_judged_is_not_orphaned(app: Celery) -> None:
    broker, client = app.relier.broker, app.relier.broker.store.redis
    store, keys, rules, suspect = broker.store, broker.keys, broker.reap_rules, ("aaa", "", "")
    store.run(claiming.hello(keys, "aaa", {"epoch": 1}))

    def claim(queue: str) -> None:
        client.lpush(queue, f"from {queue}")
        store.run_once(claiming.claim(keys, "aaa", 1, [queue], 1, [""]))

    claim("old")
    queues = fleet.known_queues(store)
    claim("new")
    reap = reaping.reap(keys, reaping.Suspect(*suspect), queues, "dead", rules)
    assert store.run(reap).status == "more"
    assert client.sismember(keys.workers, "aaa"), "whoever goes on finds it"
    bring_back(store, broker, Verdict("aaa", Sighting("", "", "", 1.0, False), "dead"))
    assert [client.lrange(queue, 0, -1) for queue in ("old", "new")] == [
        [b"from old"],
        [b"from new"],
    ]
    assert not client.smembers(keys.workers)


def test_what_was_acknowledged_is_not_given_back(app: Celery) -> None:
    membership, client = app.relier.membership, app.relier.broker.store.redis
    got: list[object] = []

    def receive(body: Any, message: Any) -> None:
        got.append(body)
        message.ack()
        # The very moment in which the server does not know of it yet.
        membership.reconcile()

    with app.connection() as connection, connection.channel() as channel:
        queue = Queue("plain traffic", channel=channel)
        with Consumer(channel, [queue], callbacks=[receive]):
            for number in range(20):
                connection.Producer().publish(number, routing_key=queue.name, declare=[queue])
            while len(got) < 20:
                connection.drain_events(timeout=DEADLINE_S)
            wait_for(
                lambda: (
                    not client.exists(
                        app.relier.broker.keys.claims(queue.name, membership.worker_id)
                    )
                ),
                DEADLINE_S,
                "the server to know of every end",
            )
    assert sorted(got) == list(range(20))
    assert client.llen("plain traffic") == 0


def test_a_plain_task_runs_once(scene: Scene) -> None:
    plain = scene.app.tasks["plain"]
    for number in range(200):
        plain.delay(f"plain {number}")
    scene.wait_journal("ran", "plain 199")
    scene.wait(lambda: not scene.waiting() and not scene.claimed(), "the queue to be empty")
    ran = Counter(entry.fields[1] for entry in scene.journal.entries("ran"))
    assert {ran[f"plain {number}"] for number in range(200)} == {1}


def test_the_environment_and_the_app_mean_one_server(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = app.relier.broker.store.redis
    monkeypatch.setenv("CELERY_BROKER_URL", app.relier.broker.address.url)
    other = strange.build("redis://127.0.0.1:1/0")
    other.tasks["note"].push("pushed")
    other.tasks["note"].delay("delayed")
    assert client.llen(labour.QUEUE) == 2
    with other.connection_for_write() as write, other.connection_for_read() as read:
        assert write.as_uri() == read.as_uri() != "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    "brokers",
    ["redis://127.0.0.1:1/0;redis://127.0.0.1:2/0", ["redis://127.0.0.1:1", "redis://127.0.0.1:2"]],
)
def test_two_brokers_are_refused(brokers: Any) -> None:
    with pytest.raises(ConfigurationError, match="give one broker URL, not 2"):
        Relier(Celery("two", broker=brokers))


def test_an_event_loop_per_call_leaves_no_sockets(app: Celery) -> None:
    note, client = app.tasks["note"], app.relier.broker.store.redis

    def call(times: int) -> tuple[int, int]:
        """Return how many connections the server has then, and how many files this process."""
        for number in range(times):
            asyncio.run(note.apush(f"call {number}"))
        gc.collect()
        return client.info("clients")["connected_clients"], len(os.listdir("/proc/self/fd"))

    connections, files = call(2)
    wait_for(lambda: call(50)[0] <= connections, DEADLINE_S, "the server to see them closed")
    assert call(1)[1] <= files
