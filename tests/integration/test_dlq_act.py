"""Acting on dead letters: look at one, give it another life, as it was or with other arguments."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relier.protocol.envelope import Keyring, Verdict
from support.morgue import Morgue, assert_index_agrees, open_morgue
from support.servers import new_server
from support.wait import wait_for

KEY = "a key of the whole fleet"
SOON_S = 60.0
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def morgue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Morgue]:
    settings = {"RELIER_SECRET_KEY": KEY}
    folder = tmp_path_factory.mktemp("morgue")
    with new_server() as server, open_morgue(server, folder, settings) as made:
        yield made


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIER_SECRET_KEY", KEY)


def _dead_charge(morgue: Morgue, customer: str, cents: int = 1) -> str:
    task_id = morgue.send("charge", customer, cents=cents)
    morgue.until_dead(task_id)
    return task_id


def _pay_in(morgue: Morgue, customer: str) -> None:
    (morgue.folder / customer).touch()


def _parcel(morgue: Morgue, task_id: str) -> bytes:
    raw: Any = morgue.client.hget(f"rl:{{bills}}:dead:{task_id}", "parcel")
    return bytes(raw)


def _message(morgue: Morgue, queue: str = "bills") -> Any:
    raw: Any = morgue.client.lindex(queue, 0)
    return raw


def test_a_letter_shows_what_its_task_was_called_with(morgue: Morgue) -> None:
    task_id = _dead_charge(morgue, "größe \x1b[2J東京", cents=7)
    found = morgue.facts("dlq", "inspect", task_id)
    assert json.loads(found["args"]) == ["größe \x1b[2J東京"]
    assert json.loads(found["kwargs"]) == {"cents": 7}
    assert (found["name"], found["reason"], found["runs"]) == ("morgue.charge", "failed", 1)
    assert "in _gateway" in found["traceback"]
    assert len(found["fingerprint"]) == 12
    shown = morgue.rl("dlq", "inspect", task_id).stdout
    assert "\x1b" not in shown
    assert "東京" in shown


def test_a_letter_tells_of_resurrections_and_of_what_was_saved(morgue: Morgue) -> None:
    task_id = morgue.send("poison", "/nowhere", queue="celery")
    morgue.until_dead(task_id)
    found = morgue.facts("dlq", "inspect", task_id)
    assert (found["reason"], found["runs"], found["deaths"]) == ("max_resurrections", 1, 1)
    assert json.loads(found["state"])["swallowed"] == 1
    assert "exhausted" in [event["kind"] for event in found["timeline"]]
    shown = morgue.rl("dlq", "inspect", task_id).stdout
    assert "1 by its own process's death" in shown
    assert '"swallowed": 1' in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("size", [5_000_000, 10_000_000])
def test_a_large_payload_is_cut_unless_all_is_asked_for(morgue: Morgue, size: int) -> None:
    task_id = _dead_charge(morgue, "x" * size)
    done = morgue.rl("dlq", "inspect", task_id)
    assert done.exit_code == 0
    assert len(done.stdout) < 20_000
    assert "CardError" in done.stdout
    assert "--full" in done.stdout
    assert f"rl dlq release {task_id}`" in done.stdout
    found = morgue.facts("dlq", "inspect", task_id)
    assert found["left_out"]
    assert len(json.dumps(found)) < 500_000
    assert found["size_bytes"] > size
    full = morgue.rl("dlq", "inspect", task_id, "--full").stdout
    assert "x" * size in full
    assert json.loads(morgue.facts("dlq", "inspect", task_id, "--full")["args"]) == ["x" * size]
    gone = morgue.facts("dlq", "purge", "--error", "x" * 9, "--yes")
    assert gone["removed"] == {"bills": 1}


def test_a_message_that_is_no_text_is_shown_and_kept(morgue: Morgue) -> None:
    raw = b"\xff\x00\x1b]0;mine\x07 no message"
    before = morgue.letters()
    morgue.client.lpush("bills", raw)
    [letter_id] = wait_for(lambda: morgue.letters() - before, SOON_S)
    shown = morgue.rl("dlq", "inspect", letter_id)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "\\xff" in shown.stdout
    assert "\\xff" in morgue.facts("dlq", "inspect", letter_id)["raw"]
    assert morgue.rl("dlq", "release", letter_id).exit_code == 1
    assert morgue.letters() >= {letter_id}


@pytest.mark.usefixtures("keys")
def test_retry_is_another_word_for_release(morgue: Morgue) -> None:
    task_id = _dead_charge(morgue, "retried")
    _pay_in(morgue, "retried")
    assert morgue.facts("dlq", "retry", task_id)["released"]
    assert morgue.until_result(task_id, "SUCCESS")["result"] == "retried paid 1"
    assert_index_agrees(morgue.client, "bills")


@pytest.mark.usefixtures("keys")
def test_a_letter_is_released_with_other_arguments_and_signed_anew(morgue: Morgue) -> None:
    task_id = _dead_charge(morgue, "wrong", cents=5)
    _pay_in(morgue, "right")
    morgue.client.set("rl:{bills}:paused", "1")
    try:
        released = morgue.facts(
            "dlq", "release", task_id, "--args", '["right"]', "--kwargs", '{"cents": 9}'
        )
        raw = _message(morgue)
    finally:
        morgue.client.delete("rl:{bills}:paused")
    assert released["released"]
    assert Keyring([KEY]).judge(raw).verdict is Verdict.VERIFIED
    message = json.loads(raw)
    body = json.loads(base64.b64decode(message["body"]))
    assert body[:2] == [["right"], {"cents": 9}]
    assert message["headers"]["argsrepr"] == "('right',)"
    assert morgue.until_result(task_id, "SUCCESS")["result"] == "right paid 9"


@pytest.mark.usefixtures("keys")
def test_arguments_are_changed_in_an_editor(morgue: Morgue, tmp_path: Path) -> None:
    task_id = _dead_charge(morgue, "mistyped", cents=3)
    _pay_in(morgue, "mended")

    def editor(line: str) -> dict[str, str]:
        path = tmp_path / "editor"
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return {"VISUAL": str(path), "EDITOR": str(path)}

    untouched = morgue.rl("dlq", "release", task_id, "--edit", env=editor("true"))
    assert (untouched.exit_code, "nothing was released" in untouched.stderr) == (1, True)
    broken = 'sleep 0.01; echo "{" > "$1"; touch -d "+2 seconds" "$1"'
    refused = morgue.rl("dlq", "release", task_id, "--edit", env=editor(broken))
    assert refused.exit_code == 1, refused.output
    assert "cannot be read" in refused.stderr
    assert task_id in morgue.letters()
    mend = 'sed -i s/mistyped/mended/ "$1"; touch -d "+2 seconds" "$1"'
    done = morgue.rl("dlq", "release", task_id, "--edit", env=editor(mend))
    assert done.exit_code == 0, done.output
    assert morgue.until_result(task_id, "SUCCESS")["result"] == "mended paid 3"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--args", "{}"),
        ("--args", "null"),
        ("--args", "["),
        ("--kwargs", "[]"),
        ("--kwargs", '{"a":'),
        ("--max-resurrections", "-1"),
        ("--max-resurrections", "many"),
    ],
)
def test_what_cannot_be_read_releases_nothing(morgue: Morgue, option: str, value: str) -> None:
    task_id = _dead_charge(morgue, "kept")
    done = morgue.rl("dlq", "release", task_id, option, value)
    assert done.exit_code == 2, done.output
    assert task_id in morgue.letters()


def test_what_was_changed_on_the_way_is_not_edited_into_a_signed_message(morgue: Morgue) -> None:
    task_id = _dead_charge(morgue, "unsigned here")
    forger = {"RELIER_SECRET_KEY": "a key that nobody else has"}
    [raw] = morgue.client.hmget(f"rl:{{bills}}:dead:{task_id}", "parcel")
    signed = json.loads(raw.partition(b"|")[2])
    signed["headers"]["rl_env"] = Keyring([forger["RELIER_SECRET_KEY"]]).seal_raw(
        json.dumps(signed)
    )
    parcel = f"|{json.dumps(signed)}"
    morgue.client.hset(f"rl:{{bills}}:dead:{task_id}", "parcel", parcel)
    asked = ["dlq", "release", task_id, "--args", '["right"]']
    refused = morgue.rl(*asked, env={"RELIER_SECRET_KEY": KEY})
    assert refused.exit_code == 1
    assert "--trust" in refused.stderr
    assert task_id in morgue.letters()


@pytest.mark.usefixtures("keys")
def test_a_new_life_may_have_a_limit_of_its_own(morgue: Morgue) -> None:
    """The fleet allows no resurrection: one death is the end, and two now."""
    task_id = morgue.send("poison", "/nowhere either", queue="celery")
    morgue.until_dead(task_id)
    assert morgue.journal.count("poison", "/nowhere either") == 1
    assert morgue.facts("dlq", "release", task_id, "--max-resurrections", "2")["released"]
    wait_for(lambda: morgue.journal.count("poison", "/nowhere either") == 4, SOON_S)
    morgue.until_dead(task_id)
    found = morgue.facts("dlq", "inspect", task_id)
    assert (found["life"], found["runs"], found["deaths"]) == (2, 3, 3)
    assert morgue.facts("dlq", "release", task_id)["released"]
    wait_for(lambda: morgue.journal.count("poison", "/nowhere either") == 5, SOON_S)
    morgue.until_dead(task_id)
    assert morgue.facts("dlq", "inspect", task_id)["runs"] == 1, "the limit was of that life"


@pytest.mark.usefixtures("keys")
def test_what_has_time_left_takes_it_along_by_the_servers_clock(morgue: Morgue) -> None:
    task_id = _dead_charge(morgue, "timely", cents=2)
    _pay_in(morgue, "timely")
    _expires_on(morgue, task_id, "2126-01-01T00:00:00+00:00")
    assert morgue.facts("dlq", "release", task_id)["released"]
    assert morgue.until_result(task_id, "SUCCESS")
    expires_ms, of_life, life = morgue.client.hmget(f"rl:task:{task_id}", "ex", "el", "l")
    assert abs(int(expires_ms) - 4_922_899_200_000) < HOUR_MS
    assert of_life == life == b"2"


def _expires_on(morgue: Morgue, task_id: str, when: str) -> None:
    """Have a dead letter's message say that."""
    message = json.loads(_parcel(morgue, task_id).partition(b"|")[2])
    message["headers"]["expires"] = when
    message["headers"]["rl_env"] = Keyring([KEY]).seal_raw(json.dumps(message))
    morgue.client.hset(f"rl:{{bills}}:dead:{task_id}", "parcel", f"|{json.dumps(message)}")


@pytest.mark.usefixtures("keys")
def test_what_has_expired_is_released_only_on_purpose(morgue: Morgue) -> None:
    task_id = _dead_charge(morgue, "belated", cents=2)
    _pay_in(morgue, "belated")
    _expires_on(morgue, task_id, "2026-01-01T00:00:00+00:00")
    done = morgue.rl("dlq", "release", task_id)
    assert (done.exit_code, "--late" in done.stderr) == (1, True)
    tally = morgue.rl("dlq", "retry-all", "--error", "belated", "--json")
    assert (tally.exit_code, json.loads(tally.stdout)["refused"]) == (1, 1)
    assert task_id in morgue.letters()
    assert morgue.facts("dlq", "release", task_id, "--late")["released"]
    assert morgue.until_result(task_id, "SUCCESS")["result"] == "belated paid 2"


def test_a_message_that_cannot_be_read_takes_no_other_arguments(morgue: Morgue) -> None:
    before = morgue.letters()
    morgue.client.lpush("bills", "no message at all")
    [letter_id] = wait_for(lambda: morgue.letters() - before, SOON_S)
    assert morgue.rl("dlq", "release", letter_id, "--raw", "--args", "[]").exit_code == 1
    assert letter_id in morgue.letters()


@pytest.mark.parametrize("command", ["inspect", "release", "retry"])
def test_an_unknown_id_offers_what_is_like_it(morgue: Morgue, command: str) -> None:
    task_id = _dead_charge(morgue, "nearly")
    for wrong in (task_id[:8], task_id[:-1] + "?"):
        done = morgue.rl("dlq", command, wrong)
        assert done.exit_code == 4
        assert task_id in done.stderr
    assert morgue.rl("dlq", command, "*").exit_code == 4
