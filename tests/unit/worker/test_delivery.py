from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relier.protocol.identity import Claim
from relier.store.claiming import Claimed
from relier.worker import delivery
from relier.worker.grip import ETA_KEY


def claimed(raw: bytes) -> Claimed:
    return Claimed(Claim("w", "q", "7"), "", raw, None, 0)


def message(**changes: Any) -> dict[str, Any]:
    properties = {"delivery_tag": "tag", "delivery_info": {"exchange": "", "routing_key": "q"}}
    return {"body": "", "headers": {"id": "1", "task": "t"}, "properties": properties, **changes}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "no properties"),
        (b'{"properties": {}}', "no delivery_tag"),
        (b'{"properties": {"delivery_tag": "t"}}', "no delivery_info"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_message_says_why(raw: bytes, why: str) -> None:
    with pytest.raises(delivery.UnreadableError, match=why):
        delivery.read(claimed(raw))


def test_two_deliveries_never_share_a_tag() -> None:
    raw = json.dumps(message()).encode()
    payload = delivery.read(claimed(raw))
    held = delivery.adopt(claimed(raw), payload)
    assert held.delivery_tag == "tag"
    assert payload["properties"]["delivery_tag"] == "7@q"


def eta(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_what_relier_scheduled_is_due_whatever_its_eta_says() -> None:
    due = eta(3600)
    payload = message(headers={"id": "1", "task": "t", "eta": due, "rl_token": "x"})
    assert delivery.early_by_ms(payload) == 0
    assert payload["headers"]["eta"] is None
    assert payload["properties"][ETA_KEY] == due


def test_a_stock_producers_eta_is_waited_for() -> None:
    payload = message(headers={"id": "1", "task": "t", "eta": eta(60)})
    assert 55_000 < delivery.early_by_ms(payload) <= 60_000
    assert payload["headers"]["eta"]


def test_a_stock_eta_in_the_past_is_due() -> None:
    payload = message(headers={"id": "1", "task": "t", "eta": eta(-60)})
    assert delivery.early_by_ms(payload) == 0
    assert payload["headers"]["eta"] is None


def test_a_naive_eta_is_utc() -> None:
    naive = (datetime.now(UTC) + timedelta(seconds=60)).replace(tzinfo=None).isoformat()
    assert 55_000 < delivery.until_ms(naive) <= 60_000


def test_an_eta_that_is_no_time_makes_a_message_unreadable() -> None:
    payload = message(headers={"id": "1", "task": "t", "eta": "tomorrow"})
    with pytest.raises(delivery.UnreadableError, match="no time"):
        delivery.early_by_ms(payload)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": True},
        {"id": "\ud800"},
        {"task": [1]},
        {"task": ""},
        {"retries": -1},
        {"retries": "abc"},
        {"retries": 1e400},
        {"replaced_task_nesting": 2**40},
        {"timelimit": ["a", "b"]},
        {"timelimit": [1, 2, 3]},
        {"timelimit": [-1, None]},
        {"shadow": [1]},
        {"stamps": 5},
        {"headers": 5},
    ],
)
def test_headers_that_would_hurt_a_worker_are_refused(wrong: dict[str, Any]) -> None:
    payload = message(headers={"id": "1", "task": "t", **wrong})
    with pytest.raises(delivery.UnreadableError, match="headers"):
        delivery.adopt(claimed(b""), payload)


def test_a_token_from_elsewhere_cannot_break_a_scripts_own_marks() -> None:
    payload = message(headers={"id": "1", "task": "t", "rl_token": "a|b|c"})
    assert "|" not in delivery.adopt(claimed(b""), payload).who.token


def test_the_claim_travels_with_its_message() -> None:
    payload = message()
    held = delivery.adopt(claimed(b""), payload)
    assert payload["properties"]["relier"] is held
