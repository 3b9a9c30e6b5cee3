"""Each end of a task counts once: the scripts, without a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from relier.protocol.identity import Claim, Identity
from relier.protocol.tally import DEAD, EXCUSED, EXPIRED, FAILED, OTHERS, SUCCEEDED
from relier.store import claiming, publishing, reading, reaping, running
from relier.store.address import Address
from relier.store.claiming import Unread
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from relier.store.publishing import Outgoing
from relier.store.reaping import ReapRules
from support.wait import wait_for

QUEUE, WORKER = "count", "w"
HOUR_S, DAY_S = 3600, 24 * 3600
SOON_S = 20.0
RULES = ReapRules(0, 15, 100, 0, "", b"killed", b"interrupted")


class Scene:
    """One worker that runs one task after the other."""

    def __init__(self, url: str, prefix: str = "") -> None:
        self.keys = Keys(prefix)
        self.store = Store(Address.parse(url), self.keys)
        self.redis: Any = self.store.redis
        self._aged = 0
        self.store.run(claiming.hello(self.keys, WORKER, {"epoch": 1}))

    def push(self, task: str, name: str = "job", generation: int = 0, delay_ms: int = 0) -> None:
        token = f"t-{task}-{generation}"
        out = Outgoing(task, token, generation, "", delay_ms, name, f"raw {task}")
        self.store.run(publishing.enqueue(self.keys, QUEUE, [out]))

    def claim(self) -> Claim:
        def taken() -> Claim | None:
            operation = claiming.claim(self.keys, WORKER, 1, [QUEUE], 1, [""])
            claimed = self.store.run_once(operation).claimed
            return claimed[0].claim if claimed else None

        return wait_for(taken, SOON_S)

    def start(self, claim: Claim, task: str, name: str = "job", generation: int = 0) -> None:
        who = Identity(task, f"t-{task}-{generation}", generation, name)
        operation = running.start(self.keys, claim, who, own_limit=None, max_resurrections=0)
        assert self.store.run(operation).verdict == "run"

    def begin(self, task: str, name: str = "job") -> Claim:
        self.push(task, name)
        claim = self.claim()
        self.start(claim, task, name)
        return claim

    def end(self, task: str, state: str, name: str = "job") -> None:
        claim = self.begin(task, name)
        assert self.store.run(running.finish(self.keys, claim, task, state, None))

    def wait_within_a_minute(self) -> None:
        """Wait until what is counted next is counted in one minute."""
        wait_for(lambda: reading.now_ms(self.store) % 60_000 < 50_000, SOON_S)

    def minutes(self) -> dict[tuple[str, str], int]:
        """What was counted by the minute, by how and name."""
        now_ms = reading.now_ms(self.store)
        return _by_how(reading.ended_by_minute(self.store, [QUEUE], now_ms, 10))

    def counted(self) -> dict[tuple[str, str], int]:
        """What was counted, which minutes and half hours must agree on."""
        halves = self.halves()
        assert halves == self.minutes()
        return halves

    def halves(self) -> dict[tuple[str, str], int]:
        """What was counted by the half hour."""
        now_ms = reading.now_ms(self.store)
        return _by_how(reading.ended_by_half_hour(self.store, [QUEUE], now_ms, 1))

    def age(self) -> None:
        """Let what was counted in this minute have been counted in an earlier one."""
        number = int(self.redis.get(self.keys.open_minute(QUEUE)))
        self._aged += 1
        earlier = number - 10 + self._aged
        self.redis.rename(self.keys.minute(QUEUE, number), self.keys.minute(QUEUE, earlier))
        self.redis.set(self.keys.open_minute(QUEUE), earlier)

    def latencies_ms(self) -> set[float | None]:
        now_ms = reading.now_ms(self.store)
        found = reading.ended_by_half_hour(self.store, [QUEUE], now_ms, 1)
        return {cell.most_ms for counts in found.values() for cell in counts}


def _by_how(buckets: dict[int, reading.Counts]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for counts in buckets.values():
        for cell, count in counts.items():
            found[cell.how, cell.name] = found.get((cell.how, cell.name), 0) + count
    return found


@pytest.fixture
def scene(server: EmbeddedServer) -> Iterator[Scene]:
    made = Scene(server.url)
    yield made
    made.store.close()


def test_a_finish_counts_once_however_often_it_is_asked(scene: Scene) -> None:
    claim = scene.begin("a")
    operation = running.finish(scene.keys, claim, "a", "SUCCESS", None)
    assert [scene.store.run(operation) for _ in range(3)] == [True, True, True]
    stale = running.finish(scene.keys, claim._replace(number="1"), "a", "SUCCESS", None)
    assert not scene.store.run(stale)
    assert scene.counted() == {(SUCCEEDED, "job"): 1}


def test_each_state_counts_as_what_it_is(scene: Scene) -> None:
    for number, state in enumerate(("SUCCESS", "FAILURE", "EXPIRED", "REVOKED", "IGNORED")):
        scene.end(f"task{number}", state)
    counts = {SUCCEEDED: 1, FAILED: 1, EXPIRED: 1, EXCUSED: 2}
    assert scene.counted() == {(how, "job"): count for how, count in counts.items()}


def test_a_commit_counts_once_and_what_follows_from_it_does_not(scene: Scene) -> None:
    claim = scene.begin("a")
    operation = running.commit(scene.keys, claim, "a", "FAILURE", b"outcome")
    assert [scene.store.run(operation) for _ in range(2)] == [True, True]
    assert scene.counted() == {(FAILED, "job"): 1}
    scene.store.run(running.ack_dead(scene.keys, claim, "a", {"reason": "failed"}))
    assert scene.counted() == {(FAILED, "job"): 1}


def test_a_task_that_goes_on_has_not_ended(scene: Scene) -> None:
    claim = scene.begin("a")
    scene.store.run(running.commit(scene.keys, claim, "a", "RETRY", b"outcome", goes_on=True))
    again = Outgoing("a", "t-a-1", 1, "", 0, "job", "raw a")
    scene.store.run(running.ack_next(scene.keys, claim, "a", QUEUE, again))
    assert scene.counted() == {}
    claim = scene.claim()
    scene.start(claim, "a", generation=1)
    scene.store.run(running.finish(scene.keys, claim, "a", "SUCCESS", None))
    assert scene.counted() == {(SUCCEEDED, "job"): 1}


def test_what_was_stopped_counts_by_how_it_was_committed(scene: Scene) -> None:
    claims = [(scene.begin("a"), "a", "FAILURE"), (scene.begin("b"), "b", "REVOKED")]
    for claim, task, state in claims:
        operation = running.condemn(scene.keys, claim, task, "stopped", b"outcome", state)
        assert [scene.store.run(operation) for _ in range(2)] == [True, False]
    assert scene.counted() == {(FAILED, "job"): 1, (EXCUSED, "job"): 1}


def test_a_death_counts_when_it_was_the_last(scene: Scene) -> None:
    claim = scene.begin("a")
    operation = reaping.reap_claim(scene.keys, claim, "died", RULES._replace(max_resurrections=1))
    assert scene.store.run(operation).verdict == "requeued"
    assert scene.counted() == {}
    claim = scene.claim()
    scene.start(claim, "a")
    operation = reaping.reap_claim(scene.keys, claim, "died", RULES)
    verdicts = [scene.store.run(operation).verdict for _ in range(2)]
    assert verdicts == ["exhausted", "gone"]
    assert scene.counted() == {(FAILED, "job"): 1}


def test_a_worker_that_is_reaped_counts_those_that_died_too_often(scene: Scene) -> None:
    scene.begin("a", "killer")
    suspect = reaping.Suspect(WORKER, "", "")
    operation = reaping.reap(scene.keys, suspect, [QUEUE], "died", RULES)
    assert [scene.store.run(operation).exhausted for _ in range(2)] == [1, 0]
    assert scene.counted() == {(FAILED, "killer"): 1}


def test_what_cannot_run_counts_as_dead_and_a_copy_of_it_does_not(scene: Scene) -> None:
    scene.push("a")
    first = claiming.bury(
        scene.keys, scene.claim(), Unread("a", "t-a-0"), "a", {"reason": "unreadable"}
    )
    assert [scene.store.run(first) for _ in range(2)] == [True, False]
    scene.redis.lpush(QUEUE, "no record of this one")
    nobody = Unread("", "")
    scene.store.run(
        claiming.bury(scene.keys, scene.claim(), nobody, "raw", {"reason": "unreadable"})
    )
    assert scene.counted() == {(DEAD, "job"): 1, (DEAD, OTHERS): 1}
    scene.redis.lpush(QUEUE, "raw a")
    copy = claiming.bury(
        scene.keys, scene.claim(), Unread("a", "t-a-0"), "a", {"reason": "unreadable"}
    )
    assert scene.store.run(copy)
    assert scene.counted() == {(DEAD, "job"): 1, (DEAD, OTHERS): 1}


def test_what_was_put_off_for_too_long_counts_as_dead(scene: Scene) -> None:
    scene.push("a")
    who, letter = Unread("a", "t-a-0"), {"reason": "unregistered"}
    for verdict in ("deferred", "buried"):
        operation = claiming.defer(
            scene.keys, scene.claim(), who, delay_ms=1, most_deferrals=1, letter=letter
        )
        assert [scene.store.run(operation) for _ in range(2)] == [verdict, "stale"]
    assert scene.counted() == {(DEAD, "job"): 1}


def test_a_latency_is_measured_from_when_the_task_was_due(scene: Scene) -> None:
    scene.push("a", delay_ms=1500)
    scene.redis.hincrby(scene.keys.task("a"), "at", -HOUR_S * 1000)
    claim = scene.claim()
    scene.start(claim, "a")
    scene.store.run(running.finish(scene.keys, claim, "a", "SUCCESS", None))
    [latency_ms] = scene.latencies_ms()
    assert latency_ms is not None
    assert latency_ms <= 60_000


def test_the_wait_for_a_retry_belongs_to_the_latency(scene: Scene) -> None:
    claim = scene.begin("a")
    scene.redis.hincrby(scene.keys.task("a"), "at", -HOUR_S * 1000)
    scene.store.run(running.commit(scene.keys, claim, "a", "RETRY", b"outcome", goes_on=True))
    again = Outgoing("a", "t-a-1", 1, "", 50, "job", "raw a")
    scene.store.run(running.ack_next(scene.keys, claim, "a", QUEUE, again))
    claim = scene.claim()
    scene.start(claim, "a", generation=1)
    scene.push("a", generation=2, delay_ms=50)
    scene.store.run(running.finish(scene.keys, claim, "a", "SUCCESS", None))
    assert scene.latencies_ms() == {7_200_000}


def test_a_success_without_a_record_has_no_latency(scene: Scene) -> None:
    claim = scene.begin("a")
    scene.redis.delete(scene.keys.task("a"))
    assert scene.store.run(running.finish(scene.keys, claim, "a", "SUCCESS", None))
    assert scene.counted() == {(SUCCEEDED, OTHERS): 1}
    assert scene.latencies_ms() == {None}


def test_a_minute_is_added_to_its_half_hour_when_the_next_begins(scene: Scene) -> None:
    for number in range(4):
        scene.wait_within_a_minute()
        scene.end(f"a{number}", "SUCCESS")
        scene.end(f"b{number}", "FAILURE")
        scene.end(f"c{number}", "FAILURE", "other")
        count = number + 1
        expected = {(SUCCEEDED, "job"): count, (FAILED, "job"): count, (FAILED, "other"): count}
        assert scene.counted() == expected
        scene.age()


def test_names_without_end_are_counted_together(scene: Scene) -> None:
    scene.wait_within_a_minute()
    scene.end("a", "FAILURE", "x" * 201)
    assert scene.counted() == {(FAILED, OTHERS): 1}
    minute = scene.keys.minute(QUEUE, int(scene.redis.get(scene.keys.open_minute(QUEUE))))
    scene.redis.hset(minute, mapping={f"f||name{n}": 1 for n in range(1000)})
    scene.end("b", "FAILURE", "one too many")
    scene.end("c", "FAILURE", "name7")
    expected = {(FAILED, OTHERS): 2, (FAILED, "name7"): 2}
    counts = scene.counted()
    assert {each: counts[each] for each in expected} == expected
    assert sum(counts.values()) == 1003
    # A second minute with other names: their half hour has no room for them.
    scene.age()
    scene.end("d", "FAILURE", "of the next minute")
    scene.age()
    scene.end("e", "FAILURE", "of the third")
    halves = scene.halves()
    assert (FAILED, "of the next minute") not in halves
    assert halves[FAILED, OTHERS] > 2
    assert sum(halves.values()) == 1005


def test_a_foreign_key_in_a_counts_place_stops_no_task(scene: Scene) -> None:
    minute = reading.now_ms(scene.store) // 60_000
    for number in (minute, minute + 1):
        scene.redis.set(scene.keys.minute(QUEUE, number), "not a hash")
    scene.end("a", "SUCCESS")
    assert scene.redis.hget(scene.keys.task("a"), "s") == b"e"


@pytest.mark.parametrize("junk", ["not a number", "-1", "1e99", "9" * 400])
def test_what_somebody_else_wrote_stops_neither_a_task_nor_a_report(
    scene: Scene, junk: str
) -> None:
    scene.wait_within_a_minute()
    scene.redis.set(scene.keys.open_minute(QUEUE), junk)
    scene.end("a", "SUCCESS")
    minute = scene.keys.minute(QUEUE, int(scene.redis.get(scene.keys.open_minute(QUEUE))))
    foreign = {f"name{n}": junk for n in range(1000)}
    scene.redis.hset(minute, mapping={"f||job": junk, "s|10|": "", "+": junk, **foreign})
    scene.end("b", "FAILURE")
    scene.age()
    scene.end("c", "SUCCESS")
    assert scene.redis.hget(scene.keys.task("c"), "s") == b"e"
    assert scene.halves()[SUCCEEDED, "job"] == 2


def test_counts_end_by_themselves(scene: Scene) -> None:
    scene.wait_within_a_minute()
    scene.end("a", "SUCCESS")
    scene.end("b", "FAILURE")
    [minute] = scene.redis.keys("rl:{count}:tally:m:*")
    assert 3 * DAY_S < scene.redis.ttl(minute) <= 3 * DAY_S + HOUR_S
    scene.age()
    scene.end("c", "SUCCESS")
    lasts_s = sorted(scene.redis.ttl(key) for key in scene.redis.keys("rl:{count}:tally:*"))
    assert HOUR_S < lasts_s[0] <= 2 * HOUR_S, "the minute that is in its half hour"
    assert all(3 * DAY_S < each <= 3 * DAY_S + HOUR_S for each in lasts_s[1:])
    assert len(lasts_s) == 4


def test_counts_have_the_apps_prefix(server: EmbeddedServer) -> None:
    scene = Scene(server.url, "shop:")
    scene.end("a", "SUCCESS")
    assert scene.counted() == {(SUCCEEDED, "job"): 1}
    assert all(key.startswith(b"shop:") for key in scene.redis.keys("*tally*"))
    scene.store.close()
