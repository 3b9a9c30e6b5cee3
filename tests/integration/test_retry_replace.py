"""retry() and replace(): the same id, once more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import chain, chord

from relier.store.embedded import EmbeddedServer
from support.kitchen import RESULT_S, Kitchen, open_kitchen
from support.wait import wait_for


@pytest.fixture(scope="module")
def kitchen(
    session_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kitchen]:
    with open_kitchen(session_server, tmp_path_factory.mktemp("generations")) as running:
        yield running


@pytest.mark.parametrize("throw", [True, False])
def test_retry(kitchen: Kitchen, throw: bool) -> None:
    word = kitchen.word()
    link = kitchen.tasks["write"].si(word)
    receipt = kitchen.tasks["retry"].apply_async((2,), {"throw": throw}, link=link)
    assert receipt.get(RESULT_S) == 2
    runs = [entry.fields[2] for entry in kitchen.journal.entries("retry", receipt.id)]
    assert runs == ["0", "1", "2"]
    wait_for(lambda: kitchen.journal.count("write", word), RESULT_S)
    assert kitchen.journal.count("write", word) == 1
    wait_for(lambda: len(kitchen.signals(receipt.id)) == 9, RESULT_S)
    once = ["prerun", "retry", "postrun"]
    assert kitchen.signals(receipt.id) == [*once, *once, "prerun", "success", "postrun"]


def test_retries_end(kitchen: Kitchen) -> None:
    receipt = kitchen.tasks["retry"].push(99)
    error = receipt.get(RESULT_S, propagate=False)
    assert type(error).__name__ == "MaxRetriesExceededError"
    assert kitchen.journal.count("retry", receipt.id) == 4


def test_autoretry_for(kitchen: Kitchen) -> None:
    word = kitchen.word()
    receipt = kitchen.tasks["autoretry"].push(word)
    assert isinstance(receipt.get(RESULT_S, propagate=False), KeyError)
    assert kitchen.journal.count("autoretry", word) == 3


def test_a_retry_in_a_chain_and_a_chord_counts_once(kitchen: Kitchen) -> None:
    retry, add, total = (kitchen.tasks[name] for name in ("retry", "add", "total"))
    assert chain(retry.s(1), add.s(5)).apply_async().get(RESULT_S) == 6
    assert chord([retry.s(1), retry.s(2)], total.s()).apply_async().get(RESULT_S) == 3


REPLACEMENTS = [("task", 3), ("chain", 6), ("group", [3, 7]), ("chord", 10)]


@pytest.mark.parametrize(("by", "value"), REPLACEMENTS)
def test_replace(kitchen: Kitchen, by: str, value: object) -> None:
    word = kitchen.word()
    link = kitchen.tasks["write"].si(word)
    receipt = kitchen.tasks["replace"].apply_async((by,), link=link)
    assert receipt.get(RESULT_S) == value
    assert kitchen.journal.count("replace", receipt.id) == 1
    wait_for(lambda: kitchen.journal.count("write", word), RESULT_S)
    assert kitchen.journal.count("write", word) == 1


@pytest.mark.parametrize("by", ["task", "chain", "chord"])
def test_replace_inside_canvas(kitchen: Kitchen, by: str) -> None:
    replace, add, total = (kitchen.tasks[name] for name in ("replace", "add", "total"))
    value = dict(REPLACEMENTS)[by]
    assert isinstance(value, int)
    assert chain(replace.s(by), add.s(1)).apply_async().get(RESULT_S) == value + 1
    both = chord([replace.s(by), add.s(1, 1)], total.s())
    assert both.apply_async().get(RESULT_S) == value + 2
