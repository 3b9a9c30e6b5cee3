"""A worker that was paused past its lease changes nothing, in Redis or in a user's database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import redis

from integration.apps import ledger
from support.journal import Journal
from support.wait import wait_for
from support.worker import Worker

SOON_S = 30.0


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def test_a_paused_worker_is_refused_everywhere(redis_url: str, tmp_path: Path, pool: str) -> None:
    database, gate, journal = tmp_path / "db", tmp_path / "gate", Journal(tmp_path / "journal.tsv")
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(ledger.SCHEMA)
        db.execute("INSERT INTO invoice VALUES ('i-1', NULL, 0)")
    env = {
        ledger.BROKER: redis_url,
        ledger.DATABASE: str(database),
        ledger.GATE: str(gate),
        "RELIER_HEARTBEAT_TTL": "1.5",
        **journal.env,
    }

    def worker(name: str) -> Worker:
        return Worker("integration.apps.ledger", env=env, name=name, pool=pool, log_dir=tmp_path)

    def row() -> object:
        with closing(sqlite3.connect(database)) as db:
            return db.execute("SELECT total, fence FROM invoice").fetchone()

    client = redis.Redis.from_url(redis_url)
    with client, worker("paused") as paused:
        receipt = ledger.build(redis_url).tasks["settle"].push("i-1")
        wait_for(lambda: journal.count("began", 1), SOON_S)
        with worker("healthy"):
            paused.sigstop()
            wait_for(lambda: journal.count("began", 2), SOON_S)
            gate.touch()
            assert receipt.get(SOON_S) == "attempt 2"
            (second,) = journal.entries("began", 2)
            assert row() == (2, int(second.fields[2]))
            result = client.get(f"celery-task-meta-{receipt.id}")
            record = client.hgetall(f"rl:task:{receipt.id}")

            paused.sigcont()
            wait_for(lambda: "commits nothing" in paused.log(), SOON_S)
    assert journal.count("updated", 2, 1) == 1
    assert journal.count("updated", 1, 0) == 1, "its UPDATE found a later fence"
    (refused,) = journal.entries("refused", 1)
    assert "Stop; the task runs elsewhere" in refused.fields[2]
    assert row() == (2, int(second.fields[2]))
    with redis.Redis.from_url(redis_url) as after:
        assert after.get(f"celery-task-meta-{receipt.id}") == result
        assert after.hgetall(f"rl:task:{receipt.id}") == record
