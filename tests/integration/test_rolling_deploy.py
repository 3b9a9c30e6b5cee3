"""A deploy under way: two editions of a task module, with producers and workers of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.states import READY_STATES
from click.testing import CliRunner

from relier.cli.main import rl
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from relier.worker.refusal import MOST_DEFERRALS_OF_NEWER
from support.journal import Journal
from support.wait import wait_for
from support.worker import TESTS, Worker

EDITIONS = Path(__file__).parent / "apps" / "till"
QUEUE = "till"
SOON_S = 40.0
KEY = "the key of the till's own"


class Deploy:
    """A server, and what runs of each edition."""

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.redis = stack.enter_context(redis.Redis.from_url(url, decode_responses=True))
        self.redis.flushall()
        self.keys, self.url = Keys(), url
        self.journal = Journal(folder / "journal.tsv")
        self.env = {
            "TILL_URL": url,
            "RELIER_HEARTBEAT_TTL": "2",
            "RELIER_SECRET_KEY": KEY,
            "RELIER_REQUIRE_SIGNATURE": "true",
            **self.journal.env,
        }

    def worker(
        self,
        edition: str,
        *,
        wait_ready: bool = True,
        concurrency: int = 2,
        options: tuple[str, ...] = (),
        **env: str,
    ) -> Worker:
        worker = Worker(
            "till",
            env={**self.env, **env},
            concurrency=concurrency,
            path=[EDITIONS / edition],
            name=edition,
            log_dir=self.folder,
            options=("--without-mingle", "--without-gossip", *options),
        )
        self._stack.push(worker.__exit__)
        worker.start(wait_ready=wait_ready)
        return worker

    def dispatch(self, edition: str, kind: str, *customers: str, **env: str) -> list[str]:
        """Let a producer of an edition dispatch; return the task ids."""
        path = os.pathsep.join(
            [str(EDITIONS / edition), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        done = subprocess.run(
            [sys.executable, "-m", "till", kind, *customers],
            env={**os.environ, **self.env, "PYTHONPATH": path, **env},
            capture_output=True,
            text=True,
            timeout=SOON_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)
        return found

    def charged(self, customer: str) -> list[tuple[str, ...]]:
        """Return (edition, cents, ...) of each time a customer was charged."""
        return [
            (entry.fields[1], *entry.fields[3:])
            for entry in self.journal.entries("charged")
            if entry.fields[2] == customer
        ]

    def wait_charged(self, *customers: str) -> None:
        wait_for(
            lambda: all(self.charged(each) for each in customers),
            SOON_S,
            lambda: f"not charged: {[each for each in customers if not self.charged(each)]}",
        )

    def events(self, kind: str, task_id: str) -> int:
        entries = self.redis.xrange(self.keys.events(QUEUE))
        return sum(fields["k"] == kind and fields["i"] == task_id for _, fields in entries)

    def letter(self, task_id: str) -> dict[str, str]:
        """Wait for a task's dead letter."""
        name = self.keys.dead_letter(QUEUE, task_id)
        wait_for(lambda: self.redis.exists(name), SOON_S)
        found: dict[str, str] = self.redis.hgetall(name)
        return found

    def result(self, task_id: str) -> dict[str, Any]:
        """Wait for a task's result."""
        name, found = f"celery-task-meta-{task_id}", dict[str, Any]()

        def ended() -> bool:
            found.update(json.loads(self.redis.get(name) or "{}"))
            return found.get("status") in READY_STATES

        wait_for(ended, SOON_S, lambda: f"{task_id} is {found}")
        return found


@pytest.fixture
def deploy(server: EmbeddedServer, tmp_path: Path) -> Iterator[Deploy]:
    with ExitStack() as stack:
        yield Deploy(server.url, tmp_path, stack)


@pytest.mark.slow
def test_old_and_new_workers_share_a_queue(deploy: Deploy) -> None:
    # The old one takes few: what it cannot run it puts off, for longer each time.
    old = deploy.worker("first", concurrency=1, options=("--prefetch-multiplier", "1"))
    new = deploy.worker("second", concurrency=4)
    kinds = ("push", "delay", "chain")
    of_old = [
        f"{word} old {kind} {n}" for word in ("once", "again") for kind in kinds for n in "ab"
    ]
    of_new = [f"once new {kind}" for kind in kinds] + ["again new push"]
    for kind in kinds:
        deploy.dispatch("first", kind, *(each for each in of_old if kind in each))
        deploy.dispatch("second", kind, *(each for each in of_new if kind in each))
    # Whoever is called again by the new one may be put off by the old one, again and again.
    deploy.wait_charged(*(each for each in of_old if each.startswith("once")))
    assert old.running
    old.stop()
    deploy.wait_charged(*of_old, *of_new)
    for customer in of_old + of_new:
        charges = deploy.charged(customer)
        assert len(charges) == 1, (customer, charges)
        assert charges[0] in (("first", "300"), ("second", "300", "EUR"))
    assert {deploy.charged(each)[0][0] for each in of_new} == {"second"}, "the old one cannot"
    assert not deploy.redis.exists(deploy.keys.dead(QUEUE))
    assert new.running


def test_what_an_old_producer_left_is_migrated(deploy: Deploy) -> None:
    pushed = deploy.dispatch("first", "push", "early", "again early")
    deploy.dispatch("first", "chain", "chained early")
    stock = Celery("stock", broker=deploy.url, set_as_current=False)
    stock.send_task("till.charge", ("stock", 3), queue=QUEUE)
    stock.close()
    deploy.worker("second", RELIER_REQUIRE_SIGNATURE="false")
    customers = ("early", "again early", "chained early", "stock")
    deploy.wait_charged(*customers)
    assert [deploy.charged(each) for each in customers] == [[("second", "300", "EUR")]] * 4
    assert [deploy.result(each)["result"] for each in pushed] == ["early", "again early"]


def test_one_call_in_two_shapes_is_one_call(deploy: Deploy) -> None:
    calls = deploy.dispatch("first", "refund", "early", "early")
    calls += deploy.dispatch("second", "refund", "early")
    deploy.worker("second")
    assert [deploy.result(each)["result"] for each in calls] == ["early"] * 3
    refunds = [entry.fields[1:] for entry in deploy.journal.entries("refunded")]
    assert refunds == [("second", "early", "300")]


@pytest.mark.slow
def test_a_message_newer_than_every_worker_waits_and_is_kept_in_the_end(deploy: Deploy) -> None:
    old = deploy.worker("first")
    task_id, second = deploy.dispatch("second", "push", "ahead", "behind")
    wait_for(lambda: deploy.events("deferred", task_id), SOON_S)
    shown = CliRunner().invoke(rl, ["tasks", "inspect", second, "--json", "--url", deploy.url])
    assert json.loads(shown.stdout)["schema_version"] == 2
    # As if it had come and gone for an hour.
    deploy.redis.hset(deploy.keys.task(task_id), "u", MOST_DEFERRALS_OF_NEWER)
    letter = deploy.letter(task_id)
    assert letter["reason"] == "newer"
    assert "arguments of till.charge in version 2" in letter["error"]
    result = deploy.result(task_id)
    assert (result["status"], result["result"]["exc_type"]) == ("FAILURE", "SchemaMigrationError")
    assert "has arguments of till.charge in version 2, this worker knows 1: " in old.log()
    assert deploy.charged("ahead") == []
    old.stop()
    deploy.worker("second")
    deploy.wait_charged("behind")
    released = CliRunner().invoke(
        rl, ["dlq", "release", task_id, "--url", deploy.url], env={"RELIER_SECRET_KEY": KEY}
    )
    assert released.exit_code == 0, released.stderr
    deploy.wait_charged("ahead")


def test_a_failing_migration_harms_nobody(deploy: Deploy) -> None:
    odd, killer, sound = deploy.dispatch("first", "push", "odd", "killer", "sound")
    worker = deploy.worker("second")
    deploy.wait_charged("sound")
    letter = deploy.letter(odd)
    assert letter["reason"] == "migration"
    assert letter["error"].startswith(
        "SchemaMigrationError: the migration of till.charge from version 1 raised KeyError"
    )
    assert "euros_to_cents" in letter["traceback"]
    assert odd in letter["parcel"], "the message as it came"
    assert deploy.result(odd)["result"]["exc_type"] == "SchemaMigrationError"

    assert deploy.letter(killer)["reason"] == "max_resurrections"
    assert deploy.journal.count("killed", "killer") == 2, "bounded like a body that kills"
    assert deploy.result(sound)["status"] == "SUCCESS"
    assert worker.running


def test_a_migration_on_the_way_to_a_key_is_bounded_too(deploy: Deploy) -> None:
    killer, sound = deploy.dispatch("first", "refund", "killer", "sound")
    worker = deploy.worker("second")
    assert deploy.result(sound)["result"] == "sound"
    assert deploy.letter(killer)["reason"] == "max_resurrections"
    assert deploy.journal.count("killed", "killer") == 2
    assert worker.running


@pytest.mark.slow
def test_a_worker_with_a_gap_in_its_migrations_does_not_start(deploy: Deploy) -> None:
    worker = deploy.worker("gap", wait_ready=False)
    assert worker.wait(SOON_S) != 0
    assert "no migration of till.charge starts from version 1" in worker.log()
    assert not deploy.redis.smembers(deploy.keys.workers)
