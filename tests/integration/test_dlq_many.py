"""Many dead letters at once: released at a rate, removed, and by two operators at the same time."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.morgue import Morgue, assert_index_agrees, open_morgue
from support.servers import new_server
from support.wait import wait_for

LETTERS = 40
SOON_S = 60.0


@pytest.fixture(scope="module")
def morgue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Morgue]:
    folder = tmp_path_factory.mktemp("morgue")
    settings = {
        "RELIER_CHECKPOINT_BACKEND": "filesystem",
        "RELIER_CHECKPOINT_DIR": str(folder / "states"),
        "RELIER_CHECKPOINT_MAX_INLINE_BYTES": "1000",
    }
    with new_server() as server, open_morgue(server, folder, settings) as made:
        yield made


@pytest.fixture(autouse=True)
def _empty(morgue: Morgue) -> Iterator[None]:
    yield
    assert morgue.rl("dlq", "purge", "--yes").exit_code == 0
    assert not morgue.letters()
    for queue in ("celery", "bills"):
        assert_index_agrees(morgue.client, queue)


def _die(morgue: Morgue, word: str, count: int = LETTERS) -> dict[str, str]:
    """Let tasks die whose second life would succeed; return their ids by customer."""
    sent = {f"{word}{n}": morgue.send("charge", f"{word}{n}") for n in range(count)}
    morgue.until_dead(*sent.values())
    for customer in sent:
        (morgue.folder / customer).touch()
    return sent


def _ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=SOON_S)
    assert process.returncode in (0, 1, 4), err
    return {"status": process.returncode, **(json.loads(out) if out else {}), "error": err}


def test_a_dry_run_says_what_would_be_done_and_does_nothing(morgue: Morgue) -> None:
    _die(morgue, "dry", 5)
    lookup = morgue.send("lookup", 1)
    morgue.until_dead(lookup)
    found = morgue.facts("dlq", "retry-all", "--task", "*.charge", "--dry-run")
    assert (found["letters"], found["exact"]) == (5, True)
    assert [group["task"] for group in found["groups"]] == ["morgue.charge"]
    assert morgue.facts("dlq", "retry-all", "--error", "of 'dry3'", "--dry-run")["letters"] == 1
    shown = morgue.rl("dlq", "retry-all", "--dry-run").stdout
    assert shown.startswith("Would release 6 dead letters.")
    assert "CardError" in shown
    assert len(morgue.letters()) == 6


def test_those_that_are_meant_live_again_at_the_rate_asked_for(morgue: Morgue) -> None:
    sent = _die(morgue, "rated", 6)
    lookup = morgue.send("lookup", 2)
    morgue.until_dead(lookup)
    begun_s = time.monotonic()
    tally = morgue.facts("dlq", "retry-all", "--filter", "task=morgue.charge", "--rate", "20/s")
    assert time.monotonic() - begun_s >= 5 / 20
    assert (tally["released"], tally["gone"], tally["refused"]) == (6, 0, 0)
    for customer, task_id in sent.items():
        assert morgue.until_result(task_id, "SUCCESS")["result"] == f"{customer} paid 0"
        assert morgue.journal.count("charge", customer) == 2
    assert morgue.letters() == {lookup}


def test_what_fails_again_is_released_once(morgue: Morgue) -> None:
    sent = [morgue.send("lookup", f"again{n}") for n in range(10)]
    morgue.until_dead(*sent)
    assert morgue.facts("dlq", "retry-all", "--rate", "100/s")["released"] == 10
    morgue.until_dead(*sent)
    assert all(morgue.journal.count("lookup", f"again{n}") == 2 for n in range(10))


def test_what_cannot_be_released_is_left_and_said(morgue: Morgue) -> None:
    morgue.client.lpush("bills", "no message")
    sent = _die(morgue, "beside", 1)
    wait_for(lambda: len(morgue.letters()) == 2, SOON_S)
    done = morgue.rl("dlq", "retry-all")
    assert done.exit_code == 1
    assert "Released 1 dead letter. 1 left, for example:" in done.stdout
    assert "--raw" in done.stdout
    morgue.until_result(sent["beside0"], "SUCCESS")
    assert len(morgue.letters()) == 1


def test_two_operators_release_one_letter_once(morgue: Morgue) -> None:
    [(customer, task_id)] = _die(morgue, "coveted", 1).items()
    both = [morgue.process("dlq", "release", task_id, "--json") for _ in range(3)]
    ended = [_ended(each) for each in both]
    assert sorted(each["status"] for each in ended)[0] == 0
    assert sum(each.get("released") is True for each in ended) == 1
    morgue.until_result(task_id, "SUCCESS")
    assert morgue.journal.count("charge", customer) == 2


def test_two_operators_release_all_once(morgue: Morgue) -> None:
    sent = _die(morgue, "double")
    both = [morgue.process("dlq", "retry-all", "--rate", "200/s", "--json") for _ in range(2)]
    tallies = [_ended(each) for each in both]
    assert sum(each["released"] for each in tallies) == LETTERS
    assert all(each["refused"] == each["alive"] == 0 for each in tallies)
    for customer, task_id in sent.items():
        morgue.until_result(task_id, "SUCCESS")
        assert morgue.journal.count("charge", customer) == 2
    assert not morgue.letters()


def test_a_letter_is_released_or_removed_never_both(morgue: Morgue) -> None:
    sent = _die(morgue, "torn")
    ended = [
        _ended(each)
        for each in (
            morgue.process("dlq", "retry-all", "--rate", "300/s", "--json"),
            morgue.process("dlq", "purge", "--yes", "--json"),
            morgue.process("dlq", "purge", "--yes", "--json"),
        )
    ]
    released = ended[0]["released"]
    removed = sum(sum(each["removed"].values()) for each in ended[1:])
    assert released + removed == LETTERS
    assert not morgue.letters()
    wait_for(lambda: _paid(morgue, sent) == released, SOON_S, lambda: f"{ended}")
    assert all(morgue.journal.count("charge", each) in (1, 2) for each in sent)


def _paid(morgue: Morgue, sent: dict[str, str]) -> int:
    results = morgue.client.mget([f"celery-task-meta-{each}" for each in sent.values()])
    return sum(json.loads(each)["status"] == "SUCCESS" for each in results if each)


def test_an_operator_who_dies_half_way_loses_nothing(morgue: Morgue) -> None:
    sent = _die(morgue, "halfway")
    process = morgue.process("dlq", "retry-all", "--rate", "100/s")
    wait_for(lambda: len(morgue.letters()) < LETTERS, SOON_S)
    process.kill()
    process.communicate()
    assert morgue.facts("dlq", "retry-all")["refused"] == 0
    for customer, task_id in sent.items():
        morgue.until_result(task_id, "SUCCESS")
        assert morgue.journal.count("charge", customer) == 2


def test_a_purge_is_not_begun_unasked(morgue: Morgue) -> None:
    _die(morgue, "spared", 3)
    for asked in (["dlq", "purge"], ["dlq", "purge", "--json"]):
        done = morgue.rl(*asked)
        assert done.exit_code == 2
        assert "Remove 3 dead letters for good?" in done.stderr
        assert "--yes" in done.stderr
    assert len(morgue.letters()) == 3


@pytest.mark.parametrize(("answer", "left"), [("n", 2), ("y", 0)])
def test_a_purge_asks_in_a_terminal(morgue: Morgue, answer: str, left: int) -> None:
    _die(morgue, f"asked{answer}", 2)
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "relier.cli", "dlq", "purge", "--url", morgue.server.url]
    asking = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    shown = b""
    try:
        while b"[y/N]" not in shown:
            shown += os.read(screen, 65536)
        os.write(screen, f"{answer}\n".encode())
        with suppress(OSError):  # EIO: it has ended
            while rest := os.read(screen, 65536):
                shown += rest
        assert asking.wait(SOON_S) == (1 if left else 0), shown
    finally:
        asking.kill()
        asking.wait()
        os.close(screen)
    assert b"Remove 2 dead letters for good?" in shown
    assert len(morgue.letters()) == left


def test_a_purge_says_what_it_removed_and_leaves_the_results(morgue: Morgue) -> None:
    sent = _die(morgue, "purged", 150)
    lookup = morgue.send("lookup", 3)
    morgue.until_dead(lookup)
    done = morgue.rl("dlq", "purge", "--task", "morgue.charge", "--yes")
    assert done.stdout == "Removed 150 dead letters of task morgue.charge.\n"
    assert morgue.letters() == {lookup}
    some = next(iter(sent.values()))
    assert morgue.until_result(some, "FAILURE")
    assert morgue.client.keys(f"rl:*dead:{some}") == []
    [*_, last] = morgue.facts("tasks", "inspect", some)["timeline"]
    assert (last["kind"], last["detail"]) == ("removed", "rl dlq purge")
    assert morgue.rl("dlq", "release", some).exit_code == 4


def test_a_purge_removes_the_files_of_what_was_saved(morgue: Morgue) -> None:
    folder = morgue.folder / "states"

    def files() -> list[Path]:
        return [each for each in folder.rglob("*") if each.is_file()]

    here = {
        "RELIER_CHECKPOINT_BACKEND": "filesystem",
        "RELIER_CHECKPOINT_DIR": str(folder),
    }
    for env, left in ((here, 0), ({}, 1)):
        task_id = morgue.send("hoard", 5000, queue="celery")
        morgue.until_dead(task_id)
        assert len(files()) == 1
        inspected = morgue.facts("dlq", "inspect", task_id, env=here)
        assert inspected["state"] == json.dumps("x" * 5000)
        done = morgue.facts("dlq", "purge", "--yes", env=env)
        assert done["removed"] == {"celery": 1}
        assert (done["files"], done["files_left"]) == (1 - left, left)
        assert len(files()) == left, "the sweeper's, where the folder is out of reach"
        assert morgue.client.hkeys("rl:checkpoints") == [b"home"]
