from __future__ import annotations

import re
from pathlib import Path

import pytest

import relier.store
from relier.config import load
from relier.config.objectives import LATENCIES_MS, Objective, latency_words, overall, per_task
from relier.errors import ConfigurationError


def test_objectives_are_read_as_written() -> None:
    assert overall("99.9%") == (Objective("*", 99.9),)
    assert overall(" 99.95 % , 95%@30s,50%@200ms ") == (
        Objective("*", 99.95),
        Objective("*", 95.0, 30_000),
        Objective("*", 50.0, 200),
    )
    assert per_task("billing.*=99.95%,95%@5min; report=90%@2h;") == (
        Objective("billing.*", 99.95),
        Objective("billing.*", 95.0, 300_000),
        Objective("report", 90.0, 7_200_000),
    )
    assert per_task("a=b=99%") == (Objective("a=b", 99.0),)
    assert overall("1%@5m") == overall("1%@5min")


def test_they_say_themselves() -> None:
    assert [each.words for each in overall("99.95%, 99.9999%@2h")] == [
        "99.95% succeed",
        "99.9999% in 2 h",
    ]
    assert overall("99.9%")[0].budget == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("100%", "100% is not above 0% and at most 99.9999%"),
        ("0%", "not above 0%"),
        ("0.999", "no share such as 99.9%"),
        ("99.9%,", "no share"),
        ("99%@7s", "none of those that are told apart: 10ms, 20ms"),
        ("99%@", "none of those"),
        ("99%@999999999999999s", "none of those"),
        ("99%@-1s", "none of those"),
        ("99%,98%", "the same twice"),
        ("95%@1s,90%@1000ms", "the same twice"),
        ("٩٩%", "no share"),
    ],
)
def test_what_is_none_is_refused_with_words(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)) as caught:
        load({"RELIER_SLO": text})
    assert "RELIER_SLO is" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("99%", "lacks a task's name"),
        ("=99%", "lacks a task's name"),
        ("a=99%;a=98%", "a stands there twice"),
        (";".join(f"a{n}=99%" for n in range(101)), "at most 100"),
    ],
)
def test_the_same_of_tasks_by_name(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load({"RELIER_SLO_TASKS": text})


def test_settings_hold_all_of_them() -> None:
    env = {"RELIER_SLO": "99%", "RELIER_SLO_TASKS": "a=98%"}
    assert load(env).objectives == (Objective("*", 99.0), Objective("a", 98.0))
    assert load({}).objectives == (Objective("*", 99.9),)


def test_the_script_counts_by_these_latencies() -> None:
    [package] = relier.store.__path__
    source = (Path(package) / "lua" / "lib" / "tally.lua").read_text()
    lists = re.findall(r"\{(\d+(?:, \d+)+)\}", source)
    assert tuple(int(each) for found in lists for each in found.split(", ")) == LATENCIES_MS


def test_every_latency_can_be_asked_for_as_it_is_shown() -> None:
    for latency_ms in LATENCIES_MS:
        assert overall(f"95%@{latency_words(latency_ms)}")[0].latency_ms == latency_ms
