"""What the scripts write down: events that are complete, and a history that outlives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from relier.ops import history, timeline
from relier.ops.timeline import Subject
from relier.protocol.identity import Claim, Identity
from relier.store import claiming, letters, publishing, reaping, running
from relier.store.address import Address
from relier.store.claiming import Unread
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from relier.store.publishing import Outgoing
from relier.store.reaping import ReapRules, Suspect

KEYS, QUEUE, WORKER = Keys(), "q", "w"
RULES = ReapRules(5, 15, 100, 0, "", b"blame", b"interruptions")


class Desk:
    """One server's scripts, and a worker called w."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.redis: Any = store.redis
        self.arrive()

    def arrive(self) -> None:
        self.store.run(claiming.hello(KEYS, WORKER, {"epoch": 1, "name": "w@host"}))

    def push(self, task: str) -> None:
        out = Outgoing(task, f"t-{task}", 0, "", 0, "name", f"raw {task}")
        self.store.run(publishing.enqueue(KEYS, QUEUE, [out]))

    def claim(self, room: int = 1) -> list[Claim]:
        harvest = self.store.run_once(claiming.claim(KEYS, WORKER, 1, [QUEUE], room, [""]))
        return [each.claim for each in harvest.claimed]

    def start(self, claim: Claim, task: str) -> int:
        who = Identity(task, f"t-{task}", 0, "name")
        asked = running.start(KEYS, claim, who, own_limit=None, max_resurrections=5)
        started = self.store.run(asked)
        assert started.verdict == "run"
        return started.fence

    def begin(self, task: str) -> tuple[Claim, int]:
        self.push(task)
        [claim] = self.claim()
        return claim, self.start(claim, task)

    def defer(self, claim: Claim, task: str, reason: str, most: int = 1000) -> str:
        return self.store.run(
            claiming.defer(
                KEYS,
                claim,
                Unread(task, f"t-{task}"),
                delay_ms=1,
                most_deferrals=most,
                letter={"reason": reason, "error": reason},
            )
        )

    def way(self, task: str) -> list[tuple[str, str]]:
        events = timeline.of_task(self.store, self.subject(task), [QUEUE])
        return [(event.kind, event.detail) for event in events]

    def subject(self, task: str) -> Subject:
        lines = self.redis.hget(KEYS.task(task), "h") or b""
        return Subject(task, QUEUE, lines.decode())


@pytest.fixture
def desk(server: EmbeddedServer) -> Iterator[Desk]:
    store = Store(Address.parse(server.url), KEYS)
    yield Desk(store)
    store.close()


def test_every_event_says_who_ran_it_and_under_which_fence(desk: Desk) -> None:
    claim, fence = desk.begin("a")
    desk.store.run(running.finish(KEYS, claim, "a", "SUCCESS", None))
    events = timeline.of_task(desk.store, desk.subject("a"), [QUEUE])
    told = [(e.kind, e.worker_name, e.claim, e.fence, e.attempt) for e in events]
    assert told == [
        ("accepted", "", "", 0, 0),
        ("claimed", "w@host", claim.number, 0, 0),
        ("started", "w@host", claim.number, fence, 1),
        ("ended", "w@host", claim.number, fence, 1),
    ]
    assert not desk.redis.hexists(KEYS.task("a"), "h"), "only a task in trouble pays for it"


def test_one_event_tells_of_a_whole_batch(desk: Desk) -> None:
    tasks = [f"task-{n}" for n in range(5)]
    for task in tasks:
        desk.push(task)
    claims = desk.claim(room=10)
    assert len(claims) == 5
    kinds = [fields[b"k"] for _, fields in desk.redis.xrange(KEYS.events(QUEUE))]
    assert kinds.count(b"claimed") == 1
    for claim, task in zip(claims, tasks, strict=True):
        desk.start(claim, task)
        assert desk.way(task) == [("accepted", "name"), ("claimed", ""), ("started", "")]
    assert desk.claim() == []
    assert kinds.count(b"claimed") == 1, "an empty hand is no event"


def test_a_death_outlives_the_stream_with_its_reason(desk: Desk) -> None:
    _, fence = desk.begin("a")
    dead = reaping.reap(KEYS, Suspect(WORKER, "", ""), [QUEUE], "connection lost", RULES)
    assert desk.store.run(dead).status == "done"
    assert desk.store.run(dead).status == "done", "a lost reply: nothing is written twice"
    desk.redis.delete(KEYS.events(QUEUE))
    [died] = history.read(desk.subject("a").lines, "a")
    assert (died.kind, died.worker_name, died.fence) == ("requeued", "w@host", fence)
    desk.arrive()
    [claim] = desk.claim()
    desk.start(claim, "a")
    desk.store.run(running.finish(KEYS, claim, "a", "SUCCESS", None))
    desk.redis.delete(KEYS.events(QUEUE))
    assert desk.way("a") == [("requeued", "connection lost"), ("started", ""), ("ended", "SUCCESS")]


def test_whoever_goes_on_says_why_the_worker_died(desk: Desk) -> None:
    for task in ("a", "b"):
        desk.begin(task)
    one_each = RULES._replace(batch_size=1)
    for reason in ("silent for 10 s", "being reaped"):
        desk.store.run(reaping.reap(KEYS, Suspect(WORKER, "", ""), [QUEUE], reason, one_each))
    assert desk.way("a")[-1] == desk.way("b")[-1] == ("requeued", "silent for 10 s")
    assert (
        timeline.named(desk.store, timeline.of_task(desk.store, Subject("a"), [QUEUE]))[
            1
        ].worker_name
        == "w@host"
    ), "its entry is gone"


def test_both_sources_tell_each_move_once(desk: Desk) -> None:
    claim, _ = desk.begin("a")
    desk.store.run(reaping.reap_claim(KEYS, claim, "process died (signal 9)", RULES))
    kinds = [kind for kind, _ in desk.way("a")]
    assert kinds == ["accepted", "claimed", "started", "requeued"]


def test_a_long_history_keeps_its_beginning_and_its_end(desk: Desk) -> None:
    desk.push("a")
    for n in range(80):
        desk.redis.zadd(KEYS.scheduled(QUEUE), {b"|raw a": 1}, xx=True)
        [claim] = desk.claim()
        reason = f"newer\t{n}\n\x1b[2J" + "ü" * 500
        assert desk.defer(claim, "a", reason) == "deferred"
    lines = desk.redis.hget(KEYS.task("a"), "h").decode(errors="replace")
    assert len(lines) < 51 * 400
    assert "\x1b" not in lines
    events = history.read(lines, "a")
    numbers = [e.detail.split()[1] if e.kind == "deferred" else e.detail for e in events]
    assert numbers == [*"01234", "30", *(str(n) for n in range(35, 80))]
    assert events[5].kind == "omitted"


def test_a_dead_letter_takes_the_history_along_and_gives_it_back(desk: Desk) -> None:
    desk.push("a")
    [claim] = desk.claim()
    desk.defer(claim, "a", "unknown task")
    desk.redis.zadd(KEYS.scheduled(QUEUE), {b"|raw a": 1}, xx=True)
    [claim] = desk.claim()
    assert desk.defer(claim, "a", "unknown task", most=1) == "buried"
    letter = desk.redis.hgetall(KEYS.dead_letter(QUEUE, "a"))
    assert not desk.redis.hexists(KEYS.task("a"), "h")
    assert [e.kind for e in history.read(letter[b"h"].decode(), "a")] == ["deferred", "dead"]
    again = Outgoing("a", "t-again", 0, "", 0, "name", "raw a")
    assert desk.store.run(letters.revive(KEYS, QUEUE, "a", again)) == 1
    assert desk.store.run(letters.revive(KEYS, QUEUE, "a", again)) == 1
    desk.redis.delete(KEYS.events(QUEUE))
    assert [kind for kind, _ in desk.way("a")] == ["deferred", "dead", "released"]
    [claim] = desk.claim()
    started = running.start(
        KEYS, claim, Identity("a", "t-again", 0, "name"), own_limit=None, max_resurrections=5
    )
    assert desk.store.run(started).verdict == "run"
    desk.store.run(running.finish(KEYS, claim, "a", "SUCCESS", None))
    fresh = Outgoing("a", "t-fresh", 0, "", 0, "name", "raw a")
    desk.store.run(publishing.enqueue(KEYS, QUEUE, [fresh]))
    assert not desk.redis.hexists(KEYS.task("a"), "h"), "another life has a history of its own"


def test_something_else_in_the_events_place_stops_no_move(desk: Desk) -> None:
    desk.redis.set(KEYS.events(QUEUE), "not a stream")
    claim, _ = desk.begin("a")
    desk.store.run(reaping.reap_claim(KEYS, claim, "process died (signal 9)", RULES))
    [claim] = desk.claim()
    desk.start(claim, "a")
    assert desk.store.run(running.finish(KEYS, claim, "a", "SUCCESS", None))
    lines = desk.redis.hget(KEYS.task("a"), "h").decode()
    assert [e.kind for e in history.read(lines, "a")] == ["requeued", "started", "ended"]


def test_that_it_was_cancelled_is_remembered_once(desk: Desk) -> None:
    desk.push("a")
    for _ in range(2):
        assert desk.store.run(running.revoke(KEYS, "a"))
    assert [e.kind for e in history.read(desk.subject("a").lines, "a")] == ["cancelled"]
    assert desk.store.run(running.revoke(KEYS, "nobody"))
    assert not desk.redis.hexists(KEYS.task("nobody"), "h")
