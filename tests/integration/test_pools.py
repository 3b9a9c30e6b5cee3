"""protect_all, and what each pool does for plain tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relier.store.embedded import EmbeddedServer
from support.kitchen import RESULT_S, Kitchen, open_kitchen
from support.wait import wait_for


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def everything(
    request: pytest.FixtureRequest,
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kitchen]:
    folder = tmp_path_factory.mktemp("all")
    with open_kitchen(session_server, folder, pool=request.param, protect_all=True) as running:
        yield running


def test_plain_tasks_are_protected(everything: Kitchen) -> None:
    for name in ("plain", "plain_late"):
        receipt = everything.tasks[name].delay(5)
        assert receipt.get(RESULT_S) is not None
        record = f"rl:task:{receipt.id}"
        assert everything.client.hget(record, "s") == b"e"
        assert everything.client.hexists(record, "st"), "it ran without a start"


def test_built_ins_are_protected(everything: Kitchen) -> None:
    result = everything.tasks["total"].map([[1, 2], [3]]).apply_async()
    assert result.get(RESULT_S) == [3, 3]
    assert everything.client.hexists(f"rl:task:{result.id}", "st"), "it ran without a start"


def test_a_plain_task_that_kills_its_process_comes_back(everything: Kitchen) -> None:
    if "concurrency: 2 (prefork)" not in everything.worker.log():
        pytest.skip("the process is the worker here: tests/faults has it")
    word = everything.word()
    assert everything.tasks["die"].delay(word).get(RESULT_S) == word
    assert everything.journal.count("die", word) == 2


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_without_protect_all_plain_tasks_stay_plain(
    fresh_server: EmbeddedServer, tmp_path: Path, pool: str
) -> None:
    with open_kitchen(fresh_server, tmp_path, pool=pool) as kitchen:
        receipts = [kitchen.tasks[name].delay(5) for name in ("plain", "plain_late")]
        assert [receipt.get(RESULT_S) for receipt in receipts][1] == 5
        for receipt in receipts:
            assert not kitchen.client.hexists(f"rl:task:{receipt.id}", "st")
        late = kitchen.tasks["plain_late"].apply_async((6,), countdown=0.2)
        assert late.get(RESULT_S) == 6
        wait_for(lambda: kitchen.journal.count("plain"), RESULT_S)
