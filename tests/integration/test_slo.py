"""Objectives of a real fleet with real failures, and what `rl slo` says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from relier.cli.main import rl
from relier.protocol.tally import HALF_HOUR_MS, MINUTE_MS
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from support.kitchen import QUEUES, Kitchen, open_kitchen
from support.wait import wait_for
from support.worker import Worker

SOON_S = 40.0
QUEUE = QUEUES[0]
ONE_EACH = ("--prefetch-multiplier", "1")
"""So that two workers share a few tasks."""


def run(server: EmbeddedServer, *arguments: str, **env: str) -> Result:
    return CliRunner().invoke(rl, ["slo", *arguments, "--url", server.url], env=env)


def facts(server: EmbeddedServer, *arguments: str, status: int = 0, **env: str) -> Any:
    done = run(server, *arguments, "--json", **env)
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


def ends(server: EmbeddedServer) -> dict[str, dict[str, int]]:
    """How the tasks of each name ended, those columns that are not 0."""
    columns = ("succeeded", "failed", "expired", "dead", "excused")
    by_minute, before = facts(server, "report", "--since", "1h")["tasks"], None
    while by_minute != before:  # one may end between two looks
        before = by_minute
        by_half_hour = facts(server, "report", "--since", "3d")["tasks"]
        by_minute = facts(server, "report", "--since", "1h")["tasks"]
    assert by_minute == by_half_hour
    return {row["name"]: {c: row[c] for c in columns if row[c]} for row in by_minute}


def counts_become(server: EmbeddedServer, expected: Mapping[str, Mapping[str, int]]) -> None:
    wait_for(lambda: _total(ends(server)) >= _total(expected), SOON_S, lambda: str(ends(server)))
    assert ends(server) == expected


def _total(counts: Mapping[str, Mapping[str, int]]) -> int:
    return sum(sum(each.values()) for each in counts.values())


def second_worker(kitchen: Kitchen, server: EmbeddedServer, folder: Path) -> Worker:
    env = {
        "BROKER": server.url,
        "BACKEND": server.url,
        "RELIER_HEARTBEAT_TTL": "2",
        **kitchen.journal.env,
    }
    return Worker(
        "integration.apps.worker",
        env={**env, "PROTECT_ALL": "1"},
        concurrency=2,
        queues=QUEUES,
        options=ONE_EACH,
        log_dir=folder,
    )


def test_every_end_counts_once_whatever_dies(fresh_server: EmbeddedServer, tmp_path: Path) -> None:
    server, gate = fresh_server, tmp_path / "gate"
    with open_kitchen(server, tmp_path, protect_all=True, options=ONE_EACH) as kitchen:
        tasks = kitchen.tasks
        with second_worker(kitchen, server, tmp_path) as victim:
            held = [tasks["hold"].push(str(gate)) for _ in range(4)]
            wait_for(lambda: kitchen.journal.count("hold") == 4, SOON_S)
            tasks["add"].push_many([(n, n) for n in range(20)])
            for how in ("error", "error", "error", "ignore"):
                tasks["end"].push(how)
            tasks["retry"].push(2)
            tasks["autoretry"].push("key")
            tasks["replace"].push("chord")
            tasks["die"].delay(kitchen.word())
            tasks["write"].apply_async(("late",), expires=datetime.now(UTC) - timedelta(seconds=5))
            victim.sigkill_tree()
        gate.touch()
        assert [each.get(SOON_S) for each in held] == [str(gate)] * 4
        counts_become(
            server,
            {
                "hold": {"succeeded": 4},
                "add": {"succeeded": 22},
                "end": {"failed": 3, "excused": 1},
                "retry": {"succeeded": 1},
                "autoretry": {"failed": 1},
                "replace": {"succeeded": 1},
                "die": {"succeeded": 1},
                "write": {"expired": 1},
            },
        )
    # Nobody runs any more: what is counted stays what it is.
    assert _total(ends(server)) == 35
    found = facts(server, "report")
    [kept] = found["objectives"]
    assert (kept["events"], kept["bad"], kept["burning"]) == (34, 5, True)


def test_a_task_that_kills_its_process_counts_as_failed(
    fresh_server: EmbeddedServer, tmp_path: Path
) -> None:
    settings = {"RELIER_MAX_RESURRECTIONS": "0"}
    with open_kitchen(fresh_server, tmp_path, protect_all=True, settings=settings) as kitchen:
        kitchen.tasks["die"].delay(kitchen.word())
        counts_become(fresh_server, {"die": {"failed": 1}})


class Past:
    """A server on which tasks ended in the past, without having run."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self._redis: Any = redis.Redis.from_url(server.url)
        self._redis.flushall()
        self._redis.sadd("rl:queues", QUEUE)
        self._keys = Keys()

    def ended(self, field: str, count: int, ago_s: float) -> None:
        seconds, micros = self._redis.time()
        at_ms = int(seconds * 1000 + micros / 1000 - ago_s * 1000)
        minute, half_hour = at_ms // MINUTE_MS, at_ms // HALF_HOUR_MS
        self._redis.hincrby(self._keys.minute(QUEUE, minute), field, count)
        self._redis.hincrby(self._keys.half_hour(QUEUE, half_hour), field, count)


@pytest.fixture
def past(session_server: EmbeddedServer) -> Past:
    return Past(session_server)


def states(found: Any) -> list[str]:
    return [each["state"] for each in found["objectives"]]


def test_without_data_there_are_words_and_no_failure(past: Past) -> None:
    for command in ("status", "report"):
        done = run(past.server, command, "--fail-on", "burn")
        assert done.exit_code == 0, done.output
    assert "No data" in run(past.server, "status").stdout
    assert "No task has ended" in run(past.server, "report").stdout
    found = facts(past.server, "status")
    assert states(found) == ["no data"]
    assert [each["burn_rate"] for each in found["objectives"][0]["windows"]] == [None] * 5
    [kept] = facts(past.server, "report")["objectives"]
    assert kept["good_percent"] is kept["budget_used_percent"] is None


def test_a_budget_that_burns_fails_a_script(past: Past) -> None:
    past.ended("s|100|shop.pay", 900, 10)
    past.ended("f||shop.pay", 80, 10)
    past.ended("e||shop.pay", 20, 10)
    past.ended("r||shop.pay", 500, 10)
    found = facts(past.server, "status", "--fail-on", "burn", status=1)
    assert states(found) == ["page"]
    assert found["burning"] is True
    [line] = found["objectives"]
    assert {round(each["burn_rate"], 6) for each in line["windows"]} == {100}
    assert {(each["events"], each["bad"]) for each in line["windows"]} == {(1000, 100)}
    assert [each["state"] for each in line["alerts"]] == ["burning"] * 3
    done = run(past.server, "status")
    assert done.exit_code == 0, "only a script that asks is told by the status"
    assert "page: all, 99.9% succeed: burns at 100 over 1 h and 100 over 5 min" in done.stdout
    assert "the budget of 30 d lasts 7 h" in done.stdout
    assert facts(past.server, "report", "--fail-on", "burn", status=1)["burning"] is True


def test_what_is_over_burns_no_more(past: Past) -> None:
    past.ended("s|100|shop.pay", 1000, 10)
    past.ended("f||shop.pay", 100, 50 * 60)
    assert states(facts(past.server, "status", "--fail-on", "burn", status=1)) == ["ticket"]
    found = facts(past.server, "status")
    [page, _, ticket] = found["objectives"][0]["alerts"]
    assert page["state"] == "ok"
    assert page["long_rate"] > 14.4 > page["short_rate"] == 0
    assert ticket["state"] == "burning"


def test_old_failures_belong_to_the_long_window_alone(past: Past) -> None:
    past.ended("s|100|shop.pay", 1000, 10)
    past.ended("f||shop.pay", 100, 2 * 24 * 3600)
    [line] = facts(past.server, "status", "--fail-on", "burn")["objectives"]
    assert [each["bad"] for each in line["windows"]] == [0, 0, 0, 0, 100]
    assert facts(past.server, "report", "--since", "1d")["objectives"][0]["bad"] == 0
    assert facts(past.server, "report", "--since", "3d")["objectives"][0]["bad"] == 100


def test_two_failures_of_few_are_no_trend(past: Past) -> None:
    past.ended("f||shop.pay", 2, 10)
    assert states(facts(past.server, "status", "--fail-on", "burn")) == ["too few"]
    assert "by fewer than 3 failures" in run(past.server, "status").stdout
    assert "too few" in run(past.server, "report", "--fail-on", "burn").stdout


def test_objectives_of_latency_and_of_tasks_by_name(past: Past) -> None:
    past.ended("s|1000|shop.pay", 95, 10)
    past.ended("s|inf|shop.pay", 5, 10)
    past.ended("s||shop.pay", 7, 10)
    past.ended("s|50|report.make", 10, 10)
    past.ended("f||report.make", 90, 10)
    env = {
        "RELIER_SLO": "50%, 99%@1s, 90%@500ms",
        "RELIER_SLO_TASKS": "shop.*=99.9%,95%@1s; report.make=10%",
    }
    found = facts(past.server, "report", "--since", "30m", **env)
    kept = [(each["tasks"], each["events"], each["bad"]) for each in found["objectives"]]
    assert kept == [
        ("*", 207, 90),
        ("*", 110, 5),
        ("*", 110, 100),
        ("shop.*", 107, 0),
        ("shop.*", 100, 5),
        ("report.make", 100, 90),
    ]
    assert [each["burning"] for each in found["objectives"]] == [
        *(False, True, True),
        *(False, False, False),
    ]
    report, pay = found["tasks"]
    assert (report["name"], report["p95_ms"]) == ("report.make", 50)
    assert (pay["p50_ms"], pay["p95_ms"], pay["p99_ms"]) == (1000, 1000, None)
    shown = run(past.server, "report", "--since", "30m", **env).stdout
    assert "> 6 h" in shown
    assert "95% in 1 s" in shown
    alerts = facts(past.server, "status", **env)["objectives"][2]["alerts"]
    assert [each["reachable"] for each in alerts] == [False, True, True]


@pytest.mark.parametrize("since", ["4d", "0s", "3 days", "-1h", ""])
def test_a_time_that_is_not_kept_is_wrong_usage(past: Past, since: str) -> None:
    done = run(past.server, "report", f"--since={since}")
    assert done.exit_code == 2
    assert "--since" in done.stderr


def test_bad_settings_and_names_are_said_in_a_line(past: Past) -> None:
    done = run(past.server, "status", RELIER_SLO="100%")
    assert done.exit_code == 2
    assert "no failure at all would be left" in done.stderr
    done = run(past.server, "report", "--queue", "celer")
    assert done.exit_code == 4
    assert "did you mean celery?" in done.stderr
    assert "Traceback" not in done.stderr
