"""Admission on a real server: what it lets in, what it refuses, and what it never refuses."""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import redis
from celery import Celery, chain
from click.testing import CliRunner, Result

from relier import Relier, rl_task
from relier.cli.main import rl
from relier.errors import (
    AdmissionRejectedError,
    AdmissionTooLargeError,
    ConfigurationError,
    PayloadError,
    RedisConnectionError,
)
from relier.store import publishing
from relier.store.admission import Admission
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys

KEYS = Keys()
QUEUE = "celery"
FOREVER_S = 3600.0


class Desk:
    """An app that dispatches under some limits; nobody consumes."""

    def __init__(self, url: str, **settings: object) -> None:
        self.app = Celery("desk", broker=url, backend=url, set_as_current=False)
        limits = {f"admission_{name}": value for name, value in settings.items()}
        limits.setdefault("admission_window_s", FOREVER_S)
        Relier(self.app, env="development", redis_socket_timeout_s=2, **limits)
        self.send = self.task("send")
        self.client: Any = redis.Redis.from_url(url)

    def task(self, name: str, **options: Any) -> Any:
        @rl_task(app=self.app, shared=False, name=name, **options)
        def send(n: int = 0, tenant: object = "nobody") -> None: ...

        return send

    def attempt(self) -> AdmissionRejectedError | None:
        """Dispatch once; return the refusal, or None when it was accepted."""
        try:
            self.send.push()
        except AdmissionRejectedError as refused:
            return refused
        return None

    def waiting(self, queue: str = QUEUE) -> int:
        return int(self.client.llen(queue))

    def now_s(self) -> float:
        seconds, micros = self.client.time()
        return float(seconds + micros / 1e6)


@pytest.fixture
def desk(redis_url: str) -> Iterator[Any]:
    made: list[Desk] = []

    def make(**settings: object) -> Desk:
        made.append(Desk(redis_url, **settings))
        return made[-1]

    yield make
    for each in made:
        each.client.close()
        each.app.close()


# A limit of the cluster.


def test_two_apps_of_one_process_have_their_own_limits(desk: Any) -> None:
    few, many = desk(limit=1), desk(limit=3)
    few.send.delay(1)
    many.send.delay(2)
    with pytest.raises(AdmissionRejectedError, match="limit of 1 "):
        few.send.delay(3)
    many.send.delay(3)
    with pytest.raises(AdmissionRejectedError, match="limit of 3 "):
        many.send.delay(4)


def test_every_way_of_dispatching_takes_a_slot_and_is_refused(desk: Any) -> None:
    it = desk(limit=4)
    it.send.push(1)
    it.send.delay(2)
    it.app.send_task("send", (3,))
    it.send.s(4).apply_async(countdown=60)
    for refused in (
        lambda: it.send.push(5),
        lambda: it.send.delay(5),
        lambda: it.send.apply_async((5,), retry=True),
        lambda: it.send.apply_async((5,), countdown=60),
        lambda: it.app.send_task("send", (5,)),
        lambda: chain(it.send.si(5), it.send.si(6)).apply_async(),
        lambda: it.send.push_many([(5,)]),
    ):
        with pytest.raises(AdmissionRejectedError, match="cluster's limit of 4 tasks") as caught:
            refused()
        assert FOREVER_S - 30 < caught.value.retry_after <= FOREVER_S
        assert int(caught.value.headers["Retry-After"]) == math.ceil(caught.value.retry_after)
    assert it.waiting() == 3
    assert it.client.zcard(KEYS.scheduled(QUEUE)) == 1


async def test_asyncio_callers_are_refused_too(desk: Any) -> None:
    it = desk(limit=3)
    await it.send.apush(1)
    await it.send.apush_many([(2,), (3,)])
    with pytest.raises(AdmissionRejectedError):
        await it.send.apush(4)
    with pytest.raises(AdmissionRejectedError):
        await it.send.apush_many([(4,)])
    assert it.waiting() == 3


def test_a_refused_delay_costs_no_connection(desk: Any) -> None:
    it = desk(limit=1)
    it.send.delay(1)
    before = it.client.info("stats")["total_connections_received"]
    for _ in range(20):
        with pytest.raises(AdmissionRejectedError):
            it.send.delay(2)
    assert it.client.info("stats")["total_connections_received"] - before <= 1


def test_it_is_off_by_default(desk: Any) -> None:
    it = desk()
    it.send.push_many([(n,) for n in range(300)])
    assert not list(it.client.scan_iter("rl:{admission}*"))


def test_eager_tasks_ask_nobody(desk: Any) -> None:
    it = desk(limit=1)
    it.app.conf.task_always_eager = True
    for _ in range(3):
        it.send.push(1)


class Said(NamedTuple):
    """What one dispatch of the race was told: between which moments of the server, and what."""

    before_s: float
    after_s: float
    retry_after_s: float | None


LIMIT, PROCESSES, EACH = 1_000, 64, 25


def race(url: str, gate: Any, said: Any) -> None:
    """Dispatch as fast as one can, as soon as all the others are there."""
    it = Desk(url, limit=LIMIT, window_s=FOREVER_S)
    send = [it.send.push, it.send.delay]
    it.now_s()
    gate.wait(60)
    found = []
    for n in range(EACH):
        before_s, retry_after_s = it.now_s(), None
        try:
            send[n % 2](n)
        except AdmissionRejectedError as refused:
            retry_after_s = refused.retry_after
        found.append(Said(before_s, it.now_s(), retry_after_s))
    said.put(found)


def test_64_processes_at_once_get_exactly_the_limit(server: EmbeddedServer) -> None:
    forking = multiprocessing.get_context("fork")
    gate, said = forking.Barrier(PROCESSES), forking.Queue()
    racers = [forking.Process(target=race, args=(server.url, gate, said)) for _ in range(PROCESSES)]
    try:
        for racer in racers:
            racer.start()
        answers = [each for _ in racers for each in said.get(timeout=90)]
    finally:
        for racer in racers:
            racer.join(10)
            racer.kill()
    admitted = [each for each in answers if each.retry_after_s is None]
    refused = [each for each in answers if each.retry_after_s is not None]
    assert (len(admitted), len(refused)) == (LIMIT, PROCESSES * EACH - LIMIT)
    with redis.Redis.from_url(server.url) as client:
        assert client.llen(QUEUE) == LIMIT
        log: Any = client.lrange(KEYS.admission("window"), 0, 0)
    first_s = int(log[0].split(b":")[0]) / 1000
    # The log tells when the first was let in; the racers saw the same.
    assert min(each.before_s for each in admitted) <= first_s + 0.001
    assert first_s - 0.001 <= min(each.after_s for each in admitted)
    free_s = first_s + FOREVER_S
    for each in refused:
        assert each.before_s - 0.05 <= free_s - each.retry_after_s <= each.after_s + 0.05


@pytest.mark.parametrize("mode", ["window", "smooth"])
def test_who_waits_as_long_as_told_gets_in_and_nobody_sooner(desk: Any, mode: str) -> None:
    it = desk(limit=4, window_s=1, mode=mode, burst=2)
    for _ in range(4 if mode == "window" else 2):
        it.send.push()
    before_s = it.now_s()
    with pytest.raises(AdmissionRejectedError) as caught:
        it.send.push()
    told = caught.value.retry_after
    assert 0 < told <= 1
    # An attempt in between is refused and changes nothing.
    tried_s = before_s
    while (refused := it.attempt()) is not None:
        assert tried_s < before_s + told + 0.05
        assert refused.retry_after <= told
        time.sleep(0.005)
        tried_s = it.now_s()
    assert it.now_s() >= before_s + told - 0.001
    while (refused := it.attempt()) is None:
        pass
    time.sleep(refused.retry_after)
    it.send.push()


def test_smooth_does_not_open_all_at_once(desk: Any) -> None:
    it = desk(limit=100, window_s=10, mode="smooth", burst=5)
    admitted, began_s = 0, it.now_s()
    while it.now_s() - began_s < 1:
        refused = it.attempt()
        admitted += refused is None
        assert refused is None or refused.retry_after <= 0.1
        time.sleep(0.005)
    took_s = it.now_s() - began_s
    assert 5 < admitted <= 5 + took_s * 10 + 1


def test_counts_do_not_stay_for_ever(desk: Any) -> None:
    for mode in ("window", "smooth"):
        it = desk(limit=5, window_s=0.2, mode=mode, tenant_limit=5)
        it.task(f"of_{mode}", admission_key="tenant").push(1, "acme")
    found = list(it.client.scan_iter("rl:{admission}*"))
    assert len(found) == 5
    assert all(0 < it.client.pttl(key) <= 2_000 for key in found)


# Duplicates.


def test_a_repeat_of_an_accepted_dispatch_takes_no_slot(desk: Any) -> None:
    it = desk(limit=2)
    broker = it.app.relier.broker
    message = it.send.dispatcher._template.build((1,), {})
    admission = Admission(broker.admission, [None], "|")
    operation = publishing.enqueue(KEYS, QUEUE, [message], admission)
    assert [broker.store.run(operation) for _ in range(5)] == [[1], [0], [0], [0], [0]]
    it.send.push(2)
    assert broker.store.run(operation) == [0], "also when nothing is left"
    with pytest.raises(AdmissionRejectedError):
        it.send.push(3)
    assert it.waiting() == 2


def test_a_dispatch_beside_a_running_task_of_its_id_takes_no_slot(desk: Any) -> None:
    it = desk(limit=2)
    it.send.apply_async((1,), task_id="same")
    it.client.hset(KEYS.task("same"), "s", "r")
    it.send.apply_async((1,), task_id="same")
    it.send.push(2)
    assert it.waiting() == 2


# Bulk.


def test_a_chunk_is_all_or_none_and_the_error_says_what_was_accepted(desk: Any) -> None:
    it = desk(limit=300)
    calls = [(n,) for n in range(400)]
    with pytest.raises(AdmissionRejectedError) as caught:
        it.send.push_many(calls)
    accepted = caught.value.accepted
    assert len(accepted) == 250
    assert it.waiting() == 250
    assert all(it.client.exists(KEYS.task(each)) for each in accepted)
    # It says when there is room for the whole chunk, not for one.
    assert caught.value.retry_after > FOREVER_S - 30
    assert len(it.send.push_many(calls[len(accepted) :][:50])) == 50
    assert it.waiting() == 300


async def test_the_same_in_asyncio(desk: Any) -> None:
    it = desk(limit=200)
    with pytest.raises(AdmissionRejectedError) as caught:
        await it.send.apush_many((n,) for n in range(1000))
    assert (len(caught.value.accepted), it.waiting()) == (125, 125)


def test_more_than_the_whole_limit_is_said_so(desk: Any) -> None:
    it = desk(limit=100)
    with pytest.raises(AdmissionTooLargeError, match="Send at most 100 at a time") as caught:
        it.send.push_many([(n,) for n in range(101)])
    assert caught.value.accepted == ()
    assert it.waiting() == 0
    it.send.push_many([(n,) for n in range(100)])


def test_a_refused_bulk_leaves_its_connection_usable(desk: Any) -> None:
    it = desk(limit=1)
    it.send.push()
    before = it.client.info("stats")["total_connections_received"]
    for _ in range(5):
        with pytest.raises(AdmissionRejectedError):
            it.send.push_many([(1,)])
    assert it.client.info("stats")["total_connections_received"] == before


# Tenants.


def test_a_tenant_has_a_limit_of_its_own(desk: Any) -> None:
    it = desk(limit=5, tenant_limit=2)
    send = it.task("letter", admission_key="tenant")
    send.push(1, "acme")
    send.delay(2, tenant="acme")
    for dispatch in (send.push, send.delay, send.s().delay):
        with pytest.raises(AdmissionRejectedError, match="tenant's limit of 2 tasks"):
            dispatch(3, "acme")
    send.push(4, "bits")
    it.send.push(5)
    send.push(6, "bits")
    with pytest.raises(AdmissionRejectedError, match="cluster's limit of 5 tasks"):
        send.push(7, "cogs")
    # What the cluster refused took no slot of the tenant.
    assert not it.client.exists(KEYS.admission("window", "cogs"))


def test_a_task_may_have_another_limit_for_the_same_tenants(desk: Any) -> None:
    it = desk(tenant_limit=2)
    few = it.task("few", admission_key="tenant")
    many = it.task("many", admission_key=lambda n, tenant: tenant, admission_limit=4)
    free = it.task("free", admission_key="tenant", admission_limit=0)
    many.push_many([(n, "acme") for n in range(3)])
    with pytest.raises(AdmissionRejectedError, match="limit of 2"):
        few.push(1, "acme")
    free.push(1, "acme")
    many.push(4, "acme")
    with pytest.raises(AdmissionRejectedError, match="limit of 4"):
        many.delay(5, "acme")


def test_a_chunk_of_many_tenants_is_admitted_when_each_has_room(desk: Any) -> None:
    it = desk(limit=100)
    send = it.task("letter", admission_key="tenant", admission_limit=3)
    send.push_many([(n, f"t{n % 3}") for n in range(8)])
    with pytest.raises(AdmissionRejectedError, match="tenant's limit of 3"):
        send.push_many([(1, "t2"), (2, "t1")])
    send.push(1, "t2")
    with pytest.raises(AdmissionTooLargeError, match="4 tasks at once"):
        send.push_many([(n, "new") for n in range(4)])


def test_who_names_no_tenant_is_refused(desk: Any) -> None:
    it = desk(tenant_limit=2)
    send = it.task("letter", admission_key="tenant")
    for dispatch in (send.push, send.delay):
        with pytest.raises(PayloadError, match="admission_key gives None"):
            dispatch(1, None)
    assert it.waiting() == 0


@pytest.mark.parametrize(
    "options",
    [
        {"admission_key": "tennant"},
        {"admission_limit": 5},
        {"admission_key": "tenant", "admission_limit": -1},
    ],
)
def test_options_that_cannot_work_are_refused_at_decoration(
    desk: Any, options: dict[str, Any]
) -> None:
    it = desk()
    with pytest.raises(ConfigurationError, match="admission_"):
        it.task("wrong", **options)


def test_the_key_of_a_bound_task_is_given_the_caller_s_arguments(desk: Any) -> None:
    it = desk(tenant_limit=1)

    @rl_task(app=it.app, shared=False, name="bound", bind=True, admission_key="tenant")
    def bound(self: Any, tenant: str) -> None: ...

    bound.push("acme")
    bound.push("bits")
    with pytest.raises(AdmissionRejectedError):
        bound.delay("acme")


# Depth.


def test_a_queue_that_is_deep_enough_takes_no_more(desk: Any) -> None:
    it = desk(max_queue_depth=3)
    it.send.push(1)
    it.send.apply_async((2,), priority=9)
    it.send.push_many([(3,)])
    with pytest.raises(AdmissionRejectedError, match="queue's limit of 3 waiting tasks") as caught:
        it.send.delay(4)
    assert caught.value.retry_after == 1
    with pytest.raises(AdmissionTooLargeError, match="4 tasks at once"):
        it.send.push_many([(n,) for n in range(4)])
    it.send.apply_async((5,), queue="another")
    it.send.apply_async((6,), countdown=60)
    it.client.rpop(QUEUE)
    it.send.push(7)


# Trouble.


@pytest.mark.parametrize("mode", ["window", "smooth"])
def test_a_key_of_another_type_is_an_error_before_anything_is_written(desk: Any, mode: str) -> None:
    it = desk(limit=5, tenant_limit=5, mode=mode)
    send = it.task("letter", admission_key="tenant")
    for name in (KEYS.tenants, KEYS.admission(mode, "acme"), KEYS.admission(mode)):
        it.client.flushdb()
        it.client.hset(name, "a", "hash")
        with pytest.raises(ConfigurationError, match="WRONGTYPE"):
            send.push(1, "acme")
        with pytest.raises(ConfigurationError, match="WRONGTYPE"):
            send.delay(1, "acme")
        assert list(it.client.scan_iter("rl:*")) == [name.encode()]
        assert it.waiting() == 0


def test_redis_away_is_an_error_and_no_open_gate(
    fresh_server: EmbeddedServer,
) -> None:
    it = Desk(fresh_server.url, limit=1)
    it.send.push(1)
    fresh_server.stop()
    for dispatch in (it.send.push, it.send.delay):
        with pytest.raises(RedisConnectionError):
            dispatch(2)


# The command.


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(rl, ["admission", *arguments, "--url", url])


def test_status_shows_what_is_used_and_reset_gives_it_back(desk: Any, redis_url: str) -> None:
    it = desk(limit=5, tenant_limit=2)
    send = it.task("letter", admission_key="tenant")
    assert "Nothing counts now" in run(redis_url, "status").stdout
    send.push_many([(1, "acme"), (2, "acme"), (3, "bits")])
    found = json.loads(run(redis_url, "status", "--json").stdout)
    assert found["limit"] == 0, "as it is set where the command runs"
    usages = [(each["tenant"], each["used"], each["limit"]) for each in found["usages"]]
    assert usages == [("", 3, 5), ("acme", 2, 2), ("bits", 1, 2)]
    waits = [each["retry_after_s"] for each in found["usages"]]
    assert waits[0] == waits[2] == 0
    assert FOREVER_S - 30 < waits[1] <= FOREVER_S
    shown = run(redis_url, "status").stdout
    assert "acme" in shown
    assert "2 of 2" in shown

    assert run(redis_url, "reset", "--tenant", "acme").exit_code == 0
    send.push(1, "acme")
    assert run(redis_url, "reset", "--tenant", "nobody").exit_code == 4
    done = json.loads(run(redis_url, "reset", "--json").stdout)
    assert done == {"tenant": "", "counts": 3}
    assert not list(it.client.scan_iter("rl:{admission}*"))
    send.push_many([(1, "acme"), (2, "acme")])
    assert it.waiting() == 6, "no task was touched"


def test_status_of_a_smooth_limit(desk: Any, redis_url: str) -> None:
    it = desk(limit=10, mode="smooth", burst=2)
    it.send.push_many([(1,), (2,)])
    [usage] = json.loads(run(redis_url, "status", "--json").stdout)["usages"]
    assert (usage["mode"], usage["used"], usage["at_once"], usage["limit"]) == ("smooth", 2, 2, 10)
    assert 350 < usage["retry_after_s"] <= 360


def test_threads_share_a_limit(desk: Any) -> None:
    it = desk(limit=100)

    with ThreadPoolExecutor(16) as pool:
        refused = list(pool.map(lambda _: it.attempt(), range(300)))
    assert refused.count(None) == 100
    assert it.waiting() == 100
