"""How tasks end that are revoked, that expire, and that fail for good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chord
from celery.exceptions import TaskRevokedError

from integration.apps.kitchen import make_app
from relier.store import running
from relier.store.embedded import EmbeddedServer
from support.kitchen import RESULT_S, Kitchen, open_kitchen
from support.wait import wait_for

SOON_S = 20.0


def events(kitchen: Kitchen, task_id: str) -> list[tuple[str, str]]:
    """Return what happened to a task, and the detail of each event."""
    entries = kitchen.client.xrange("rl:{celery}:events")
    return [
        (fields[b"k"].decode(), fields[b"r"].decode())
        for _, fields in entries
        if fields[b"i"] == task_id.encode()
    ]


def letter(kitchen: Kitchen, task_id: str) -> dict[bytes, bytes]:
    """Return a task's dead letter."""
    found: Any = kitchen.client.hgetall(f"rl:{{celery}}:dead:{task_id}")
    return dict(found)


def counted(kitchen: Kitchen, counter: str) -> int:
    """Return one of the worker's counters."""
    [worker] = kitchen.client.smembers("rl:workers")
    return int(kitchen.client.hget(b"rl:worker:" + worker, counter) or 0)


def test_an_expired_task_ends_as_such(kitchen: Kitchen) -> None:
    word, before = kitchen.word(), counted(kitchen, "expired")
    past = datetime.now(UTC) - timedelta(seconds=5)
    late = kitchen.tasks["write"].apply_async((word,), expires=past)
    with pytest.raises(TaskRevokedError, match="expired"):
        late.get(RESULT_S)
    assert late.state == "REVOKED"
    assert kitchen.journal.count("write", word) == 0
    assert ("ended", "EXPIRED") in events(kitchen, late.id)
    wait_for(lambda: counted(kitchen, "expired") == before + 1, SOON_S, "the counter")


def test_a_chord_learns_of_an_expired_part(kitchen: Kitchen) -> None:
    past = datetime.now(UTC) - timedelta(seconds=5)
    parts = [kitchen.tasks["add"].s(1, 2), kitchen.tasks["add"].s(3, 4).set(expires=past)]
    body = chord(parts, app=kitchen.app)(kitchen.tasks["total"].s())
    wait_for(lambda: body.state == "FAILURE", SOON_S, "the chord's body to fail")


def test_a_revoked_task_does_not_run_whenever_its_worker_started(
    fresh_server: EmbeddedServer, tmp_path: Path
) -> None:
    app = make_app(fresh_server.url, fresh_server.url)
    write = app.tasks["write"]
    waiting, scheduled = write.push("waiting"), write.apply_async(("scheduled",), countdown=1.5)
    ended = write.apply_async(("spared",), task_id="spared")
    app.control.revoke([waiting.id, scheduled.id])
    unknown = app.AsyncResult("to come")
    unknown.revoke()
    with open_kitchen(fresh_server, tmp_path, empty=False) as kitchen:
        for each in (waiting, scheduled):
            with pytest.raises(TaskRevokedError, match="revoked"):
                each.get(RESULT_S)
        ended.get(RESULT_S)
        with pytest.raises(TaskRevokedError):
            write.apply_async(("coming",), task_id="to come").get(RESULT_S)
        words = [entry.fields[1] for entry in kitchen.journal.entries("write")]
        assert words == ["spared"]
    broker = app.relier.broker
    assert not broker.store.run(running.revoke(broker.keys, "spared")), "it has ended"


def test_a_task_that_fails_for_good_is_a_dead_letter(kitchen: Kitchen) -> None:
    failed = kitchen.tasks["end"].push("error")
    with pytest.raises(ValueError, match="as told"):
        failed.get(RESULT_S)
    assert failed.state == "FAILURE"
    wait_for(lambda: letter(kitchen, failed.id), SOON_S, "the dead letter")
    found = letter(kitchen, failed.id)
    assert found[b"reason"] == b"failed"
    assert found[b"error"] == b"ValueError: as told"
    assert b"raise ValueError" in found[b"traceback"]


def test_one_that_is_retried_is_none_until_its_last_failure(kitchen: Kitchen) -> None:
    word = kitchen.word()
    failed = kitchen.tasks["autoretry"].push(word)
    with pytest.raises(KeyError):
        failed.get(RESULT_S)
    assert kitchen.journal.count("autoretry", word) == 3
    wait_for(lambda: letter(kitchen, failed.id), SOON_S, "the dead letter")
    assert [kind for kind, _ in events(kitchen, failed.id)].count("dead") == 1


def test_a_task_may_ask_for_no_letter(kitchen: Kitchen) -> None:
    failed = kitchen.tasks["end_unmourned"].push()
    with pytest.raises(ValueError, match="as told"):
        failed.get(RESULT_S)
    wait_for(lambda: events(kitchen, failed.id)[-1] == ("ended", "FAILURE"), SOON_S, "its end")
    assert not letter(kitchen, failed.id)
