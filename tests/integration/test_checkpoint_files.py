"""Who holds a checkpoint's file, and when it may be removed: the scripts, without a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relier.config import load
from relier.phoenix.sweeper import Sweeper
from relier.protocol.checkpoint import Place
from relier.protocol.identity import Claim, Identity
from relier.store import checkpoints, claiming, letters, publishing, running
from relier.store.address import Address
from relier.store.broker import Broker
from relier.store.checkpoint_files import FilesystemFiles
from relier.store.client import Store
from relier.store.keys import Keys
from relier.store.publishing import Outgoing
from relier.store.reaping import ReapRules, reap_claim
from relier.store.running import Started
from relier.store.sweeping import sweep
from support.wait import wait_for

QUEUE, WORKER, TASK = "climb", "w", "task"
SOON_S = 20.0


class Climb:
    """One worker that holds one task, and a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.store = Store(Address.parse(url), Keys())
        self.keys = self.store.keys
        self.files = FilesystemFiles(folder)
        self.claim = Claim(WORKER, QUEUE, "0")
        self.store.run(claiming.hello(self.keys, WORKER, {"epoch": 1}))
        self.publish("t1")
        self.begin("t1")

    def publish(self, token: str) -> None:
        message = Outgoing(TASK, token, 0, "", 0, "name", f"raw {token}")
        self.store.run(publishing.enqueue(self.keys, QUEUE, [message]))

    def begin(self, token: str) -> Started:
        harvest = self.store.run_once(claiming.claim(self.keys, WORKER, 1, [QUEUE], 1, [""]))
        self.claim = harvest.claimed[0].claim
        return self.start(token)

    def start(self, token: str) -> Started:
        who = Identity(TASK, token, 0, "name")
        return self.store.run(
            running.start(self.keys, self.claim, who, own_limit=None, max_resurrections=5)
        )

    def reserve(self, name: str) -> Place:
        operation = checkpoints.reserve_file(self.keys, self.claim, TASK, name, "home")
        return Place("filesystem", self.store.run(operation), name)

    def keep(self, number: int, where: Place | bytes) -> int:
        return self.store.run(checkpoints.checkpoint(self.keys, self.claim, TASK, number, 5, where))

    def save(self, number: int) -> Place:
        place = self.reserve(f"task-1-{number}")
        self.files.write(place, b"state")
        assert self.keep(number, place) == checkpoints.KEPT
        return place

    def sweep(self, grace_ms: int = 0) -> int:
        return sweep(self.store, self.files, grace_ms)

    def dead(self) -> None:
        self.store.run(running.commit(self.keys, self.claim, TASK, "FAILURE", b"outcome"))
        letter = {"reason": "failed"}
        self.store.run(running.ack_dead(self.keys, self.claim, TASK, letter))


@pytest.fixture
def climb(redis_url: str, tmp_path: Path) -> Iterator[Climb]:
    made = Climb(redis_url, tmp_path)
    yield made
    made.store.close()


def test_a_sweep_spares_what_is_referred_to_or_just_being_written(climb: Climb) -> None:
    kept = climb.save(1)
    writing = climb.reserve("task-1-2")
    climb.files.write(writing, b"state")
    assert climb.sweep(grace_ms=60_000) == 0
    assert climb.keep(2, writing) == checkpoints.KEPT
    assert climb.sweep() == 1
    with pytest.raises(Exception, match="cannot be read"):
        climb.files.read(kept)
    assert climb.files.read(writing) == b"state"
    assert climb.start("t1").checkpoint is not None


def test_a_sweep_removes_what_was_never_announced(climb: Climb) -> None:
    climb.save(1)
    climb.files.write(Place("filesystem", "home", "stranger"), b"?")
    climb.files.write(Place("filesystem", "another-server", "file"), b"!")
    assert climb.sweep(grace_ms=60_000) == 1
    assert list(climb.files.names("home")) == ["task-1-1"]
    assert list(climb.files.names("another-server")) == ["file"]


def test_sweepers_sweep_until_they_are_stopped(climb: Climb, redis_url: str) -> None:
    climb.save(1)
    broker = Broker(Address.parse(redis_url), load({}))
    sweepers = [Sweeper(broker, climb.files, every_s=0.05) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    for name in ("one", "other"):
        climb.files.write(Place("filesystem", "home", name), b"?")
        wait_for(lambda: list(climb.files.names("home")) == ["task-1-1"], SOON_S)
    for sweeper in sweepers:
        sweeper.stop()
        sweeper.join(SOON_S)
        assert not sweeper.is_alive()


def test_a_file_that_was_given_up_is_never_referred_to(climb: Climb) -> None:
    climb.save(1)
    late = climb.reserve("task-1-2")
    climb.files.write(late, b"state")
    assert climb.sweep() == 1
    assert climb.keep(2, late) == checkpoints.GIVEN_UP
    found = climb.start("t1").checkpoint
    assert found is not None
    assert found.place == Place("filesystem", "home", "task-1-1")


def test_a_late_one_takes_no_later_ones_place(climb: Climb) -> None:
    assert climb.keep(2, b"later") == checkpoints.KEPT
    assert climb.keep(1, b"early") == checkpoints.KEPT, "its caller has been answered already"
    found = climb.start("t1").checkpoint
    assert found is not None
    assert found.state == b"later"


def test_a_dead_letter_holds_its_file_and_a_release_hands_it_on(climb: Climb) -> None:
    place = climb.save(1)
    climb.dead()
    assert climb.sweep() == 0
    message = Outgoing(TASK, "t2", 0, "", 0, "name", "raw t2")
    assert climb.store.run(letters.revive(climb.keys, QUEUE, TASK, message)) == 1
    assert climb.sweep() == 0
    found = climb.begin("t2").checkpoint
    assert found is not None
    assert found.place == place
    assert climb.files.read(place) == b"state"
    climb.store.run(running.finish(climb.keys, climb.claim, TASK, "SUCCESS", None))
    assert climb.sweep() == 1


def test_a_letter_of_an_earlier_life_keeps_its_own(climb: Climb) -> None:
    first = climb.save(1)
    climb.dead()
    climb.publish("t2")
    assert climb.begin("t2").checkpoint is None, "another dispatch is other work"
    second = climb.reserve("task-2-1")
    climb.files.write(second, b"other")
    assert climb.keep(1, second) == checkpoints.KEPT
    climb.dead()
    assert climb.sweep() == 0
    assert climb.files.read(first) == b"state"
    assert climb.files.read(second) == b"other"


def test_one_that_is_buried_before_it_starts_again_takes_it_along(climb: Climb) -> None:
    climb.save(1)
    _come_back(climb)
    who = claiming.Unread(TASK, "t1")
    letter = {"reason": "unreadable"}
    assert climb.store.run(claiming.bury(climb.keys, climb.claim, who, TASK, letter))
    assert climb.sweep() == 0
    climb.store.redis.delete(climb.keys.dead_letter(QUEUE, TASK))
    assert climb.sweep() == 1, "a letter that was purged holds nothing"


def test_one_that_expires_before_it_starts_again_drops_it(climb: Climb) -> None:
    climb.save(1)
    _come_back(climb)
    ended = [claiming.Ended(climb.claim.number, claiming.Unread(TASK, "t1"), "expired")]
    assert climb.store.run(claiming.discard(climb.keys, WORKER, QUEUE, ended)) == 1
    assert climb.sweep() == 1


def test_a_record_that_had_expired_begins_again_with_the_checkpoint(climb: Climb) -> None:
    record = climb.keys.task(TASK)
    climb.store.redis.delete(record)
    assert climb.keep(1, b"state") == checkpoints.KEPT
    assert climb.store.redis.pttl(record) > 0
    climb.publish("t2")
    assert climb.begin("t2").checkpoint is None, "a new life is other work"


def _come_back(climb: Climb) -> None:
    """Its process dies, and a worker claims it again."""
    rules = ReapRules(5, 15, 100, 0, "", b"", b"")
    climb.store.run(reap_claim(climb.keys, climb.claim, "killed", rules))
    harvest = climb.store.run_once(claiming.claim(climb.keys, WORKER, 1, [QUEUE], 1, [""]))
    climb.claim = harvest.claimed[0].claim
