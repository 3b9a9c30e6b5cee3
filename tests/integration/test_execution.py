"""Tasks run, on every pool, and end in every way in which tasks end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery.exceptions import TaskRevokedError

from support.kitchen import RESULT_S, Kitchen
from support.wait import wait_for


@pytest.mark.parametrize("name", ["add", "aadd"])
def test_push_runs_functions_and_coroutines(kitchen: Kitchen, name: str) -> None:
    receipt = kitchen.tasks[name].push(2, 3)
    assert receipt.get(RESULT_S) == 5
    assert receipt.ready()
    assert receipt.status == "SUCCESS"


async def test_apush_and_aget(kitchen: Kitchen) -> None:
    receipts = await asyncio.gather(*(kitchen.tasks["add"].apush(n, 1) for n in range(5)))
    assert await asyncio.gather(*(r.aget(RESULT_S) for r in receipts)) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="as told"):
        await (await kitchen.tasks["end"].apush("error")).aget(RESULT_S)


async def test_bulk_dispatch(kitchen: Kitchen) -> None:
    add = kitchen.tasks["add"]
    receipts = list(add.push_many([(1, 2), {"x": 3, "y": 4}]))
    receipts += await add.apush_many([(n, n) for n in range(3)])
    assert [receipt.get(RESULT_S) for receipt in receipts] == [3, 7, 0, 2, 4]


def test_apush_in_one_event_loop_after_another(kitchen: Kitchen) -> None:
    add = kitchen.tasks["add"]

    async def dispatch(x: int) -> int:
        return int(await (await add.apush(x, 1)).aget(RESULT_S))

    assert [asyncio.run(dispatch(n)) for n in range(3)] == [1, 2, 3]


def test_a_task_knows_itself(kitchen: Kitchen) -> None:
    about = kitchen.tasks["about"]
    first, second = about.push(1, more="m"), about.delay(2)
    seen = first.get(RESULT_S)
    assert seen["id"] == first.id
    assert (seen["name"], seen["args"], seen["kwargs"]) == ("about", [1], {"more": "m"})
    assert seen["attempt"] == 1
    assert seen["worker"]
    assert 0 < seen["fence"] != second.get(RESULT_S)["fence"]


def test_bind(kitchen: Kitchen) -> None:
    receipt = kitchen.tasks["bound"].push(7)
    assert receipt.get(RESULT_S) == [receipt.id, 0, 7]


def test_delay_and_apply_async(kitchen: Kitchen) -> None:
    add = kitchen.tasks["add"]
    assert add.delay(1, 2).get(RESULT_S) == 3
    assert add.apply_async((1,), {"y": 4}, task_id="chosen").get(RESULT_S) == 5
    assert add.apply_async((2, 2), queue="second").get(RESULT_S) == 4


def test_countdown_and_eta(kitchen: Kitchen) -> None:
    add = kitchen.tasks["add"]
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    late = [add.apply_async((1, 1), countdown=0.3), add.apply_async((1, 2), eta=soon)]
    assert kitchen.client.zcard("rl:{celery}:scheduled") == 2
    assert [receipt.get(RESULT_S) for receipt in late] == [2, 3]
    told = kitchen.tasks["due"].apply_async(eta=soon)
    assert datetime.fromisoformat(told.get(RESULT_S)) == soon


def test_an_expired_task_does_not_run(kitchen: Kitchen) -> None:
    word = kitchen.word()
    late = kitchen.tasks["write"].apply_async((word,), countdown=0.3, expires=0.1)
    with pytest.raises(TaskRevokedError):
        late.get(RESULT_S)
    assert not kitchen.journal.count("write", word)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("error", ValueError),
        ("memory", Exception),
        ("exit", SystemExit),
        ("unpicklable", Exception),
        ("lock", Exception),
        ("reject", Exception),
    ],
)
def test_every_bad_end_is_a_failure_once(kitchen: Kitchen, how: str, error: type) -> None:
    receipt = kitchen.tasks["end"].push(how)
    assert isinstance(receipt.get(RESULT_S, propagate=False), error)
    assert receipt.status == "FAILURE"
    assert kitchen.journal.count("signal", "prerun", receipt.id) == 1
    assert kitchen.tasks["add"].push(1, 1).get(RESULT_S) == 2


def test_ignore_ends_without_a_result(kitchen: Kitchen) -> None:
    receipt = kitchen.tasks["end"].push("ignore")
    key = f"rl:task:{receipt.id}"
    wait_for(lambda: kitchen.client.hget(key, "s") == b"e", RESULT_S)
    assert receipt.status == "PENDING"


def test_a_rejected_task_is_a_dead_letter_and_has_failed(kitchen: Kitchen) -> None:
    receipt = kitchen.tasks["end"].push("reject")
    assert "as told" in str(receipt.get(RESULT_S, propagate=False))
    assert receipt.status == "FAILURE"
    letter = f"rl:{{celery}}:dead:{receipt.id}"
    wait_for(lambda: kitchen.client.hget(letter, "reason") == b"rejected", RESULT_S)
    assert b"as told" in kitchen.client.hget(letter, "error")


def test_a_rejected_task_that_wants_no_letter_leaves_none(kitchen: Kitchen) -> None:
    receipt = kitchen.tasks["end_unmourned"].push("reject")
    key = f"rl:task:{receipt.id}"
    wait_for(lambda: kitchen.client.hget(key, "s") == b"e", RESULT_S)
    assert receipt.status == "FAILURE"
    assert not kitchen.client.exists(f"rl:{{celery}}:dead:{receipt.id}")


def test_reject_with_requeue_runs_again(kitchen: Kitchen) -> None:
    word = kitchen.word()
    assert kitchen.tasks["reject_twice"].push(word).get(RESULT_S) == "done"
    assert kitchen.journal.count("reject", word) == 4


def test_signals_fire_once(kitchen: Kitchen) -> None:
    good, bad = kitchen.tasks["add"].push(1, 1), kitchen.tasks["end"].push("error")
    good.get(RESULT_S)
    bad.get(RESULT_S, propagate=False)
    wait_for(lambda: len(kitchen.signals(good.id)) == 3, RESULT_S)
    wait_for(lambda: len(kitchen.signals(bad.id)) == 3, RESULT_S)
    assert kitchen.signals(good.id) == ["prerun", "success", "postrun"]
    assert kitchen.signals(bad.id) == ["prerun", "failure", "postrun"]


def test_track_started(kitchen: Kitchen, tmp_path: Path) -> None:
    receipt = kitchen.tasks["tracked"].push(str(tmp_path / "go"))
    wait_for(lambda: receipt.status == "STARTED", RESULT_S)
    (tmp_path / "go").touch()
    assert receipt.get(RESULT_S)


def test_priorities_go_first(kitchen: Kitchen, tmp_path: Path) -> None:
    """What waits is claimed by priority: kombu's steps, lower first."""
    with kitchen.client.pipeline() as pause:
        pause.set("rl:{celery}:paused", 1)
        pause.execute()
    word = kitchen.word()
    write = kitchen.tasks["write"]
    sent = [write.apply_async((word, p), priority=p) for p in (9, 6, 3, 0)]
    assert kitchen.client.llen("celery\x06\x169") == 1
    kitchen.client.delete("rl:{celery}:paused")
    for receipt in sent:
        receipt.get(RESULT_S)
    written = [int(entry.fields[2]) for entry in kitchen.journal.entries("write", word)]
    assert sorted(written) == [0, 3, 6, 9]
    if "solo" in kitchen.worker.log():
        assert written == [0, 3, 6, 9]
