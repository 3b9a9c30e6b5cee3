"""`rl verify`: what is where it should be, what is not, and what can be put right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner

from relier import Relier, rl_task
from relier.cli.main import rl
from relier.ops.repairs import Lost, repair
from relier.ops.verify import verify
from relier.protocol.identity import Claim, Identity
from relier.store import checkpoints, claiming, running
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from relier.store.reading.walk import Owned

KEYS, QUEUE, DEAD_WORKER = Keys(), "ledger", "w-gone"


class Ledger:
    """A server with an app to dispatch with, and a worker whose scripts the tests run."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.url = server.url
        self.store = Store(Address.parse(server.url), KEYS)
        self.redis: Any = self.store.redis
        self.redis.flushall()
        self.env = {"RELIER_CHECKPOINT_BACKEND": "filesystem", "RELIER_CHECKPOINT_DIR": str(folder)}
        app = Celery("ledger", broker=server.url, backend=server.url, set_as_current=False)
        app.conf.task_default_queue = QUEUE
        Relier(app)
        self.book = rl_task(name="book", app=app, idempotent=True, shared=False)(_book)
        self.store.run(claiming.hello(KEYS, DEAD_WORKER, {"epoch": 1}))

    def claim(self) -> Claim:
        asked = claiming.claim(KEYS, DEAD_WORKER, 1, [QUEUE], 1, [""])
        return self.store.run_once(asked).claimed[0].claim

    def start(self, claim: Claim, task_id: str, key: str = "") -> str:
        token = self.redis.hget(KEYS.task(task_id), "rt").decode()
        who = Identity(task_id, token, 0, "book")
        asked = running.start(
            KEYS, claim, who, own_limit=None, max_resurrections=5, idempotency_key=key
        )
        return self.store.run(asked).verdict

    def verify(self, *options: str, status: int = 0) -> dict[str, Any]:
        """Return the account, findings by name."""
        asked = ["verify", "--url", self.url, "--json", *options]
        found = CliRunner().invoke(rl, asked, env=self.env)
        assert found.exit_code == status, found.output
        account = json.loads(found.stdout)["account"]
        account["findings"] = {each["name"]: each for each in account["findings"]}
        return dict(account)


def _book(entry: str) -> str:
    return entry


@pytest.fixture
def ledger(server: EmbeddedServer, tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(server, tmp_path)
    yield made
    made.store.close()


def test_every_place_is_counted_and_nothing_is_wrong(ledger: Ledger) -> None:
    ids = [each.id for each in ledger.book.push_many([(f"entry {i}",) for i in range(40)])]
    ledger.book.apply_async(("later",), countdown=600)
    ledger.redis.lpush(QUEUE, b"no message at all")
    assert ledger.start(ledger.claim(), ids[0], "book:1") == "run"
    assert ledger.start(ledger.claim(), ids[1], "book:1") == "parked"
    ledger.claim()

    account = ledger.verify()
    assert account["places"] == {
        "queued": 38,
        "scheduled": 1,
        "claimed": 1,
        "running": 1,
        "committed": 0,
        "to replay": 0,
        "parked": 1,
    }
    assert (account["records"], account["whole"]) == (41, True)
    assert list(account["findings"]) == ["unreadable"], "a worker makes a dead letter of it"


def test_what_is_missing_or_twice_is_named(ledger: Ledger) -> None:
    lost = ledger.book.push("lost").id
    ledger.redis.delete(QUEUE)
    twice = ledger.book.push("twice").id
    ledger.redis.lpush(QUEUE, ledger.redis.lindex(QUEUE, 0))

    findings = ledger.verify(status=1)["findings"]
    assert findings["missing"]["examples"] == [lost]
    assert findings["copies"]["examples"] == [twice]
    assert findings["copies"]["harmless"], "one of them starts"


def test_claims_of_a_worker_without_an_entry_are_given_back(ledger: Ledger) -> None:
    ids = [ledger.book.push(f"entry {i}").id for i in range(3)]
    assert ledger.start(ledger.claim(), ids[0], "book:2") == "run"
    assert ledger.start(ledger.claim(), ids[1], "book:2") == "parked"
    ledger.redis.delete(KEYS.worker(DEAD_WORKER))
    ledger.redis.srem(KEYS.workers, DEAD_WORKER)

    assert "orphaned claims" in ledger.verify(status=1)["findings"]
    assert ledger.verify("--repair")["findings"]["orphaned claims"]["repaired"] == 1
    account = ledger.verify()
    assert account["findings"] == {}
    assert account["places"]["queued"] == 3, "the parked one was woken by the move of its owner"


def test_who_is_parked_behind_nobody_is_woken(ledger: Ledger) -> None:
    ids = [ledger.book.push(f"entry {i}").id for i in range(2)]
    owner = ledger.claim()
    assert ledger.start(owner, ids[0], "book:3") == "run"
    assert ledger.start(ledger.claim(), ids[1], "book:3") == "parked"
    # By hand, and behind the sweep's back: no script leaves it so.
    ledger.redis.hdel(KEYS.idempotency("book:3"), "w", "c", "q")
    ledger.redis.delete(KEYS.parked_keys)

    assert "parked behind nobody" in ledger.verify(status=1)["findings"]
    assert ledger.verify("--repair")["findings"]["parked behind nobody"]["repaired"] == 1
    assert ledger.verify()["places"]["parked"] == 0


def test_all_who_are_parked_behind_nobody_are_woken(ledger: Ledger) -> None:
    parked = Owned(QUEUE, "book:4", f"rl:{{{QUEUE}}}:parked:book:4")
    ledger.redis.rpush(parked.name, *["|raw"] * 1_200)
    broker = ledger.book.app.relier.broker
    assert repair(broker, Lost(parked=[parked])).parked == [parked]
    assert ledger.redis.llen(QUEUE) == 1_200
    ledger.redis.delete(QUEUE)
    ledger.redis.set(QUEUE, "not a list")
    ledger.redis.rpush(parked.name, "|raw")
    assert repair(broker, Lost(parked=[parked])).parked == []


def test_files_that_no_checkpoint_refers_to_are_removed(ledger: Ledger) -> None:
    task_id = ledger.book.push("long").id
    claim = ledger.claim()
    ledger.start(claim, task_id)
    ledger.store.run(checkpoints.reserve_file(KEYS, claim, task_id, "one", "here"))
    long_ago = f"1|{KEYS.task(task_id)}"
    ledger.redis.hset(KEYS.checkpoint_files, "one", long_ago)

    assert ledger.verify(status=1)["findings"]["checkpoint files of nobody"]["examples"] == ["one"]
    assert ledger.verify("--repair")["findings"]["checkpoint files of nobody"]["repaired"] == 1
    assert ledger.verify()["findings"] == {}


def test_what_left_during_the_walk_is_not_reported(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.book.push("entry")
    claims = KEYS.claims(QUEUE, "left")
    ledger.redis.hset(claims, "1", "|raw")
    ledger.redis.zadd(KEYS.dead(QUEUE), {"letter": 1})

    def leave(_seconds: float) -> None:
        ledger.redis.delete(claims, KEYS.dead(QUEUE))

    assert {"orphaned claims", "letters without a body"} <= set(ledger.verify(status=1)["findings"])
    monkeypatch.setattr("relier.ops.verify.time.sleep", leave)
    findings = ledger.verify()["findings"]
    assert not {"orphaned claims", "letters without a body"} & set(findings)


def test_a_look_that_is_too_short_says_so(ledger: Ledger) -> None:
    ledger.book.push("entry")
    assert not verify(ledger.book.app.relier.broker, within_s=0).whole
