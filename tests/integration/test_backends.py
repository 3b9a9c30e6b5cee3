"""Result backends other than the broker's own database, and none at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, chord, group

from relier.store.embedded import EmbeddedServer
from support.kitchen import RESULT_S, Kitchen, open_kitchen
from support.wait import wait_for


@pytest.fixture(
    scope="module", params=["other database", pytest.param("file", marks=pytest.mark.slow)]
)
def kitchen(
    request: pytest.FixtureRequest,
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kitchen]:
    folder = tmp_path_factory.mktemp("backend")
    results: Path = folder / "results"
    results.mkdir()
    other = session_server.url.rpartition("/")[0] + "/1"
    backend = other if request.param == "other database" else f"file://{results}"
    with open_kitchen(session_server, folder, backend=backend, protect_all=True) as running:
        yield running


def test_results_and_errors(kitchen: Kitchen) -> None:
    assert kitchen.tasks["add"].push(1, 2).get(RESULT_S) == 3
    assert isinstance(kitchen.tasks["end"].push("error").get(RESULT_S, propagate=False), ValueError)
    failed = kitchen.tasks["end"].push("lock")
    assert failed.get(RESULT_S, propagate=False) is not None
    assert failed.status == "FAILURE"


def test_no_result_is_on_the_brokers_database(kitchen: Kitchen) -> None:
    kitchen.tasks["add"].push(1, 2).get(RESULT_S)
    assert not list(kitchen.client.scan_iter("celery-task-meta-*"))


def test_retry(kitchen: Kitchen) -> None:
    assert kitchen.tasks["retry"].push(2).get(RESULT_S) == 2


def test_canvas(kitchen: Kitchen) -> None:
    add, total = kitchen.tasks["add"], kitchen.tasks["total"]
    assert chain(add.s(1, 2), add.s(3)).apply_async().get(RESULT_S) == 6
    assert group(add.s(1, 2), add.s(3, 4)).apply_async().get(RESULT_S) == [3, 7]
    assert chord([add.s(1, 2), add.s(3, 4)], total.s()).apply_async().get(RESULT_S) == 10


def test_a_chord_whose_part_fails(kitchen: Kitchen) -> None:
    end, add = kitchen.tasks["end"], kitchen.tasks["add"]
    body = kitchen.tasks["total"].s().on_error(kitchen.tasks["on_error"].s())
    result = chord([add.s(1, 1), end.si("error")], body).apply_async()
    assert "as told" in str(result.get(RESULT_S, propagate=False))
    wait_for(lambda: kitchen.journal.count("on_error", result.id), RESULT_S)


def test_replace(kitchen: Kitchen) -> None:
    assert kitchen.tasks["replace"].push("chord").get(RESULT_S) == 10


def test_without_any_backend(fresh_server: EmbeddedServer, tmp_path: Path) -> None:
    with open_kitchen(fresh_server, tmp_path, backend="", pool="threads") as kitchen:
        word = kitchen.word()
        kitchen.tasks["add"].apply_async((1, 2), link=kitchen.tasks["write"].s(word))
        kitchen.tasks["retry"].push(1)
        wait_for(lambda: kitchen.journal.count("write", 3, word), RESULT_S)
