"""What the real script admits, beside plain references of it; the script's clock is the test's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from importlib.resources import files
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from relier import config
from relier.errors import AdmissionRejectedError, AdmissionTooLargeError
from relier.protocol.admission import Rules, Tenant
from relier.store import publishing
from relier.store.address import Address
from relier.store.admission import Admission
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from relier.store.operations import Operation
from relier.store.publishing import Outgoing
from relier.store.scripts import Script, load

LIB = files("relier.store") / "lua" / "lib"
WAYS = f"""#!lua
{(LIB / "clock.lua").read_text()}
{(LIB / "window.lua").read_text()}
local way = ARGV[1] == 'smooth' and smooth or log
local l = {{key = KEYS[1], limit = tonumber(ARGV[2]), burst = tonumber(ARGV[3])}}
l.n = tonumber(ARGV[4])
local window_ms, now_ms = tonumber(ARGV[5]), tonumber(ARGV[6]) / 1000
local wait_ms = way.wait(l, window_ms, now_ms)
if wait_ms == 0 then way.take(l, window_ms, now_ms) end
return wait_ms
"""
CLOCK = "test:clock"
EPOCH_US = 1_795_000_000_000_000
"""As large as the real clock's: it is where floating point is coarse."""

MOST_ENTRIES = 2000
EXAMPLES = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def store(server: EmbeddedServer) -> Iterator[Store]:
    opened = Store(Address.parse(server.url), Keys())
    yield opened
    opened.close()


class Gate:
    """One limit on the server, asked at moments of the test's choice."""

    def __init__(
        self, client: redis.Redis, way: str, limit: int, burst: int, window_ms: int
    ) -> None:
        client.delete("gate")
        self._client: Any = client
        self._script = client.register_script(WAYS)
        self._fixed = (way, limit, burst)
        self._window_ms = window_ms

    def ask(self, n: int, now_us: int) -> int:
        """Return how many ms n must wait; 0: they were admitted."""
        said = self._script(["gate"], [*self._fixed, n, self._window_ms, now_us])
        assert self._client.exists("gate") == 0 or self._client.pttl("gate") > 0, "would stay"
        return int(said)


class SlidingLog:
    """All that was ever admitted, one by one."""

    def __init__(self, limit: int, window_ms: int) -> None:
        self._limit = limit
        self._window_us = window_ms * 1000
        self._part_us = math.ceil(window_ms / MOST_ENTRIES) * 1000 if limit > MOST_ENTRIES else 1000
        self.made_us: list[int] = []
        self._counts_us: list[int] = []

    def wait(self, n: int, now_us: int) -> int:
        """Return how many ms n must wait."""
        live = sorted(at for at in self._counts_us if at + self._window_us > now_us)
        excess = len(live) + n - self._limit
        return math.ceil((live[excess - 1] + self._window_us - now_us) / 1000) if excess > 0 else 0

    def take(self, n: int, now_us: int) -> None:
        self.made_us += [now_us] * n
        self._counts_us += [-(-now_us // self._part_us) * self._part_us] * n


class Rate:
    """The generic cell rate algorithm, in whole fractions."""

    def __init__(self, limit: int, burst: int, window_ms: int) -> None:
        self._interval_us = Fraction(window_ms * 1000, limit)
        self._burst = burst
        self._paid_us = Fraction(0)

    def wait(self, n: int, now_us: int) -> Fraction:
        """Return how many us n must wait."""
        begin_us = max(self._paid_us, Fraction(now_us))
        wait_us = begin_us + (n - self._burst) * self._interval_us - now_us
        return max(wait_us, Fraction(0))

    def take(self, n: int, now_us: int) -> None:
        self._paid_us = max(self._paid_us, Fraction(now_us)) + n * self._interval_us


# A step: how many ask, and how many us after the last; None: as long as the last refusal said.
PAUSES = st.one_of(st.none(), st.sampled_from([0, 1, 999, 1000, 1001]), st.integers(0, 400_000))


@EXAMPLES
@given(st.data())
def test_a_window_is_a_sliding_log(client: redis.Redis, data: st.DataObject) -> None:
    limit = data.draw(st.one_of(st.integers(1, 6), st.sampled_from([2000, 2001, 9999])))
    window_ms = data.draw(st.integers(100, 3000) | st.sampled_from([60_000]))
    gate = Gate(client, "window", limit, limit, window_ms)
    reference = SlidingLog(limit, window_ms)
    now_us, advice_ms = EPOCH_US, 0
    for pause_us in data.draw(st.lists(PAUSES, max_size=30)):
        now_us += advice_ms * 1000 if pause_us is None else pause_us
        n = data.draw(st.integers(1, limit))
        said = gate.ask(n, now_us)
        note(f"{n} of {limit} at {now_us - EPOCH_US} us: {said} ms")
        assert said == reference.wait(n, now_us)
        if not said:
            reference.take(n, now_us)
        else:
            advice_ms = said
            # Not a ms earlier than needed.
            assert reference.wait(n, now_us + (said - 1) * 1000) > 0
    made = sorted(reference.made_us)
    for index, at in enumerate(made[limit:]):
        assert at - made[index] >= window_ms * 1000, "more than the limit in one window"


@EXAMPLES
@given(st.data())
def test_smooth_is_a_cell_rate(client: redis.Redis, data: st.DataObject) -> None:
    limit = data.draw(st.integers(1, 50))
    burst = data.draw(st.integers(1, limit))
    window_ms = data.draw(st.integers(100, 3000))
    gate, reference = Gate(client, "smooth", limit, burst, window_ms), Rate(limit, burst, window_ms)
    now_us, advice_ms, advised = EPOCH_US, 0, 0
    for pause_us in data.draw(st.lists(PAUSES, max_size=30)):
        now_us += advice_ms * 1000 if pause_us is None else pause_us
        n = data.draw(st.integers(1, burst))
        said = gate.ask(n, now_us)
        due_us = reference.wait(n, now_us)
        note(f"{n} of {limit} at {now_us - EPOCH_US} us: {said} ms, {float(due_us)} us")
        # The server keeps the thousandth of a ms.
        assert abs(said * 1000 - due_us) < 1000 + 50
        if pause_us is None and advice_ms and n <= advised:
            assert said == 0, "the advice was not the truth"
        if said == 0:
            reference.take(n, now_us)
        advice_ms, advised = said, n


def test_smooth_lets_in_one_per_interval_after_its_burst(client: redis.Redis) -> None:
    gate = Gate(client, "smooth", 100, 10, 1000)
    admitted = [ms for ms in range(3000) if gate.ask(1, EPOCH_US + ms * 1000) == 0]
    assert admitted[:10] == list(range(10)), "the burst"
    assert admitted[11:] == list(range(admitted[11], 3000, 10)), "then evenly"


def test_a_long_log_stays_short(client: redis.Redis) -> None:
    gate = Gate(client, "window", 1_000_000, 1_000_000, 60_000)
    for part in range(3 * MOST_ENTRIES):
        assert gate.ask(3, EPOCH_US + part * 29_000) == 0
    assert int(client.llen("gate")) <= MOST_ENTRIES + 1


def test_a_clock_that_is_set_back_opens_no_gate(client: redis.Redis) -> None:
    gate = Gate(client, "window", 2, 2, 1000)
    assert gate.ask(1, EPOCH_US) == 0
    assert gate.ask(1, EPOCH_US - 500_000) == 0
    assert gate.ask(2, EPOCH_US - 500_000) == 1500
    assert gate.ask(2, EPOCH_US + 1_000_000) == 0


# The whole script: duplicates, tenants and depth beside the references.

SOURCE = load("enqueue").source.replace(
    "redis.call('TIME')", f"redis.call('HMGET', '{CLOCK}', 's', 'us')"
)
TENANTS = (None, Tenant("acme", 2), Tenant("bits", 3))
CALLS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(TENANTS)), min_size=1, max_size=4)


class Desk:
    """Dispatches through the real script, at the test's time."""

    def __init__(self, client: redis.Redis, store: Store, rules: Rules) -> None:
        client.flushdb()
        self._client = client
        self._store = store
        self._rules = rules

    def enqueue(self, calls: list[tuple[int, Tenant | None]], now_us: int) -> object:
        seconds, micros = divmod(now_us, 1_000_000)
        self._client.hset(CLOCK, mapping={"s": seconds, "us": micros})
        messages = [Outgoing(f"id{n}", f"token{n}", 0, "", 0, "name", f"raw{n}") for n, _ in calls]
        admission = Admission(self._rules, [tenant for _, tenant in calls], "|")
        real = publishing.enqueue(self._store.keys, "desk", messages, admission)
        operation: Operation[list[int]] = real._replace(script=Script("enqueue", SOURCE))
        try:
            return self._store.run(operation)
        except AdmissionRejectedError as refused:
            return round(refused.retry_after * 1000)
        except AdmissionTooLargeError:
            return "too large"

    def waiting(self) -> int:
        return int(self._client.llen("desk"))


class Books:
    """What ``Desk`` should answer."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._logs = {"": SlidingLog(rules.limit, rules.window_ms)}
        self._limits = {"": rules.limit}
        for tenant in TENANTS[1:]:
            assert tenant is not None
            self._logs[tenant.name] = SlidingLog(tenant.limit, rules.window_ms)
            self._limits[tenant.name] = tenant.limit
        self._known: set[int] = set()
        self.waiting = 0

    def enqueue(self, calls: list[tuple[int, Tenant | None]], now_us: int) -> object:
        answers, asking = [], dict.fromkeys(self._logs, 0)
        fresh: set[int] = set()
        for n, tenant in calls:
            known = n in self._known or n in fresh
            answers.append(0 if known else 1)
            if not known:
                fresh.add(n)
                asking[""] += 1
                asking[tenant.name if tenant else ""] += 1 if tenant else 0
        asking = {name: n for name, n in asking.items() if n}
        most = self._rules.max_queue_depth
        if any(n > self._limits[name] for name, n in asking.items()) or len(fresh) > most:
            return "too large"
        waits = [self._logs[name].wait(n, now_us) for name, n in asking.items()]
        if fresh and self.waiting + len(fresh) > most:
            waits.append(1000)
        if any(waits):
            return max(waits)
        for name, n in asking.items():
            self._logs[name].take(n, now_us)
        self._known |= fresh
        self.waiting += len(fresh)
        return answers


@EXAMPLES
@given(st.lists(st.tuples(CALLS, PAUSES), max_size=15), st.integers(3, 6), st.integers(2, 12))
def test_the_whole_script(
    client: redis.Redis,
    store: Store,
    steps: list[tuple[list[tuple[int, Tenant | None]], int | None]],
    limit: int,
    most: int,
) -> None:
    given_settings = {"admission_limit": limit, "admission_window_s": 0.5}
    loaded = config.load({}, overrides={**given_settings, "admission_max_queue_depth": most})
    rules = Rules.of(loaded)
    desk, books = Desk(client, store, rules), Books(rules)
    now_us, advice_ms = EPOCH_US, 0
    for calls, pause_us in steps:
        now_us += advice_ms * 1000 if pause_us is None else pause_us
        said = desk.enqueue(calls, now_us)
        note(f"{calls} at {now_us - EPOCH_US} us: {said}")
        assert said == books.enqueue(calls, now_us)
        assert desk.waiting() == books.waiting
        advice_ms = said if isinstance(said, int) else advice_ms
