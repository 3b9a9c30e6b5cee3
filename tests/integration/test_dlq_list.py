"""`rl dlq list` against a fleet whose tasks have died of this and that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from relier.cli.main import rl
from support.morgue import Morgue, assert_index_agrees, open_morgue
from support.servers import new_server
from support.wait import wait_for

CHARGES, LOOKUPS = 12, 5


@pytest.fixture(scope="module")
def morgue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Morgue]:
    with new_server() as server, open_morgue(server, tmp_path_factory.mktemp("morgue")) as made:
        charges = [made.send("charge", f"cus_{n}", cents=n) for n in range(CHARGES)]
        made.until_dead(*charges)
        made.sent["poison"] = made.send("poison", "/nowhere", queue="celery")
        made.until_dead(made.sent["poison"])
        lookups = [made.send("lookup", n) for n in range(LOOKUPS)]
        made.sent["reject"] = made.send("reject", queue="celery")
        made.until_dead(*lookups, made.sent["reject"])
        made.client.lpush("celery", "no message \x1b[2J at all")
        wait_for(lambda: len(made.letters()) == CHARGES + LOOKUPS + 3, 60)
        made.sent |= {f"charge {n}": each for n, each in enumerate(charges)}
        yield made


def _ids(found: dict[str, list[dict[str, str]]]) -> list[str]:
    return [row["letter_id"] for row in found["rows"]]


def test_errors_are_grouped_by_their_cause(morgue: Morgue) -> None:
    found = morgue.facts("dlq", "list", "--group")
    rows = {(row["task"], row["reason"]): row for row in found["rows"]}
    assert [row["count"] for row in found["rows"]][:2] == [CHARGES, LOOKUPS]
    assert len(rows) == found["total"] == 5
    charges = rows["morgue.charge", "failed"]
    assert (charges["count"], charges["queues"]) == (CHARGES, ["bills"])
    assert charges["error"].startswith("CardError: no card of 'cus_")
    assert charges["example_id"] in morgue.sent.values()
    assert charges["first_ms"] <= charges["last_ms"] <= found["now_ms"]
    assert rows["morgue.poison", "max_resurrections"]["count"] == 1
    assert rows["morgue.reject", "rejected"]["count"] == 1
    assert rows["", "unreadable"]["count"] == 1
    assert found["letters"] == CHARGES + LOOKUPS + 3
    for narrow in ({}, {"FORCE_COLOR": "1", "COLUMNS": "40", "NO_COLOR": "1"}):
        shown = morgue.rl("dlq", "list", "--group", env=narrow).stdout
        assert charges["fingerprint"] in shown
        assert charges["example_id"] in shown, "an id is copied: it is never cut"
        assert "\x1b[2J" not in shown
    for queue in ("celery", "bills"):
        assert_index_agrees(morgue.client, queue)


def test_a_group_is_listed_by_its_fingerprint(morgue: Morgue) -> None:
    [group] = morgue.facts("dlq", "list", "--group", "--task", "*.lookup")["rows"]
    found = morgue.facts("dlq", "list", "--fingerprint", group["fingerprint"])
    assert len(found["rows"]) == found["total"] == LOOKUPS
    assert {row["name"] for row in found["rows"]} == {"morgue.lookup"}


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (["--task", "morgue.charge"], CHARGES),
        (["--task", "morgue.*", "--queue", "bills"], CHARGES + LOOKUPS),
        (["--queue", "celery"], 3),
        (["--reason", "rejected"], 1),
        (["--error", "NO CARD OF 'cus_3'"], 1),
        (["--filter", "task=*.lookup", "--filter", "newer=1h"], LOOKUPS),
        (["--newer", "1h"], CHARGES + LOOKUPS + 3),
        (["--older", "1h"], 0),
        (["--task", "morgue.charg"], 0),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_filters_leave_the_others_out(morgue: Morgue, asked: list[str], count: int) -> None:
    assert len(morgue.facts("dlq", "list", *asked)["rows"]) == count
    groups = morgue.facts("dlq", "list", "--group", *asked)["rows"]
    if "--error" not in asked:  # of a group only the last error is known
        assert sum(row["count"] for row in groups) == count
    assert morgue.rl("dlq", "list", *asked).exit_code == 0


def test_ages_are_told_apart_to_the_millisecond(morgue: Morgue) -> None:
    poison = next(
        row
        for row in morgue.facts("dlq", "list", "--task", "*.poison")["rows"]
        if row["letter_id"] == morgue.sent["poison"]
    )
    every = morgue.facts("dlq", "list")
    older = sum(row["at_ms"] < poison["at_ms"] for row in every["rows"])
    assert older == CHARGES
    age_s = (every["now_ms"] - poison["at_ms"]) / 1000
    found = morgue.facts("dlq", "list", "--older", f"{age_s - 0.5:.3f}s", "--newer", "1h")
    assert morgue.sent["poison"] in _ids(found)


def test_a_cursor_goes_on_where_the_last_list_stopped(morgue: Morgue) -> None:
    every = _ids(morgue.facts("dlq", "list"))
    assert len(every) == CHARGES + LOOKUPS + 3
    walked: list[str] = []
    cursor = ""
    for _ in range(len(every)):
        asked = ["--cursor", cursor] if cursor else []
        page = morgue.facts("dlq", "list", "--limit", "3", *asked)
        walked += _ids(page)
        cursor = page["cursor"]
        if not cursor:
            break
    assert walked == every
    assert "--cursor " in morgue.rl("dlq", "list", "--limit", "3").stdout


@pytest.mark.parametrize(
    "asked",
    [
        ["--cursor", "not one"],
        ["--cursor", "bm90IG9uZQ"],
        ["--cursor", "é"],
        ["--group", "--cursor", "x"],
        ["--older", "yesterday"],
        ["--newer", "-2h"],
        ["--filter", "colour=red"],
        ["--filter", "older=soon"],
        ["--filter", "task"],
    ],
    ids=" ".join,
)
def test_a_filter_that_cannot_be_read_is_status_2(morgue: Morgue, asked: list[str]) -> None:
    done = morgue.rl("dlq", "list", *asked)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output


def test_letters_of_an_older_relier_are_grouped_by_what_can_be_read(
    client: redis.Redis, redis_url: str
) -> None:
    for n in range(7):
        fields = {"parcel": "|{}", "at_ms": n + 1, "reason": "failed", "name": "old.task"}
        letter = {**fields, "error": f"ValueError: row {n} is gone"}
        client.hset(f"rl:{{old}}:dead:id-{n}", mapping=letter)
        client.zadd("rl:{old}:dead", {f"id-{n}": n + 1})
    client.sadd("rl:queues", "old")

    def facts(*asked: str) -> Any:
        return json.loads(CliRunner().invoke(rl, [*asked, "--json", "--url", redis_url]).stdout)

    found = facts("dlq", "list", "--group")
    [group] = found["rows"]
    assert (group["count"], group["task"], group["reason"]) == (7, "old.task", "failed")
    assert (group["first_ms"], group["last_ms"], found["unread"]) == (1, 7, 0)
    assert len(facts("dlq", "list")["rows"]) == 7
    assert len(facts("dlq", "list", "--task", "old.*", "--error", "row 3")["rows"]) == 1
    assert facts("dlq", "retry-all", "--dry-run", "--reason", "failed")["letters"] == 7
    assert facts("dlq", "purge", "--task", "old.*", "--yes")["removed"] == {"old": 7}


def test_what_an_older_relier_released_is_taken_out_of_the_index(
    client: redis.Redis, redis_url: str
) -> None:
    """It moves the letter and knows nothing of groups."""
    client.sadd("rl:queues", "old")
    client.zadd("rl:{old}:group:abc", {"ghost": 1})
    client.zadd("rl:{old}:groups", {"abc": 1})
    asked = ["dlq", "purge", "--fingerprint", "abc", "--yes", "--json", "--url", redis_url]
    done = CliRunner().invoke(rl, asked)
    assert json.loads(done.stdout)["removed"] == {"old": 0}
    assert not client.keys("rl:{old}:group*")
