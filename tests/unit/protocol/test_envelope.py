from __future__ import annotations

import base64
import copy
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.json import dumps, loads

from relier.protocol.envelope import HEADER, Keyring, Verdict, key_id, refusal

KEY, OTHER = "the first key of the tests", "another key of the tests"
RING = Keyring([KEY], required=True)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def _as_json(value: Any) -> bytes:
    return json.dumps({"headers": value, "properties": value, "body": value}).encode()


HEADERS = st.dictionaries(st.text(max_size=10), VALUES, max_size=6)


def message(**headers: Any) -> dict[str, Any]:
    return {
        "body": base64.b64encode(b'[[1, "two"], {}, {}]').decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "shop.add", "id": "an-id", "retries": 0, **headers},
        "properties": {
            "correlation_id": "an-id",
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "a-tag",
        },
    }


def signed(payload: dict[str, Any], ring: Keyring = RING) -> dict[str, Any]:
    sealed = copy.deepcopy(payload)
    sealed["headers"].pop(HEADER, None)
    sealed["headers"][HEADER] = ring.seal_raw(dumps(sealed))
    return sealed


def verdict(payload: Any, ring: Keyring = RING) -> Verdict:
    raw = payload if isinstance(payload, bytes) else dumps(payload).encode()
    return ring.judge(raw).verdict


def test_what_was_signed_verifies_and_says_by_which_key() -> None:
    seal = RING.judge(dumps(signed(message())).encode())
    assert seal == (Verdict.VERIFIED, 1, key_id(KEY))
    assert refusal(seal, RING) == ""


@given(HEADERS)
def test_any_headers_verify_after_any_way_of_writing_them_as_json(headers: dict[str, Any]) -> None:
    sealed = signed(message(**{k: v for k, v in headers.items() if k not in ("task", HEADER)}))
    raw = dumps(sealed)
    assert verdict(raw.encode()) is Verdict.VERIFIED
    put_back = loads(raw)
    assert verdict(dumps(put_back, sort_keys=True, indent=1).encode()) is Verdict.VERIFIED


@given(HEADERS)
def test_the_short_way_makes_the_same_envelope(headers: dict[str, Any]) -> None:
    payload = message(**{k: v for k, v in headers.items() if k not in ("task", HEADER)})
    raw = msgspec.json.encode(payload)
    made = RING.seal(
        payload["headers"], payload["properties"], "application/json", "utf-8", payload["body"]
    )
    assert made == RING.seal_raw(raw)


SEALED_RAW = json.dumps(signed(message(eta=None, stamps={}, custom=[1.5, "x"]))).encode()


def _meaning(raw: bytes) -> Any:
    """Return what a worker would read, or None."""
    try:
        payload = json.loads(raw)
        return {name: payload[name] for name in message()}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@given(st.integers(0, len(SEALED_RAW) - 1), st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(place: int, bit: int) -> None:
    raw = bytearray(SEALED_RAW)
    raw[place] ^= 1 << bit
    seal = RING.judge(bytes(raw))
    if seal.verdict is Verdict.VERIFIED:
        # A blank became another blank, say: nobody reads anything else than was signed.
        assert _meaning(bytes(raw)) == _meaning(SEALED_RAW)
    elif seal.verdict is Verdict.NO_TASK:
        assert "task" not in ((_meaning(bytes(raw)) or {}).get("headers") or {})
    else:
        assert refusal(seal, RING)


def test_every_byte_of_the_values_counts() -> None:
    text = SEALED_RAW.decode()
    for place in range(len(text)):
        if text[place].isalnum():
            changed = text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]
            assert RING.judge(changed.encode()).verdict is not Verdict.VERIFIED, changed[place:][
                :30
            ]


@given(st.integers(0, len(SEALED_RAW) - 1))
def test_no_truncated_message_verifies(size: int) -> None:
    assert RING.judge(SEALED_RAW[:size]).verdict is Verdict.NO_TASK


@pytest.mark.parametrize("size", [0, 1, 10, 19, 20, 61, 62])
def test_a_truncated_envelope_is_malformed(size: int) -> None:
    sealed = signed(message())
    sealed["headers"][HEADER] = sealed["headers"][HEADER][:size]
    assert verdict(sealed) is Verdict.MALFORMED


CHANGES: dict[str, Any] = {
    "task": lambda m: m["headers"].update(task="shop.steal"),
    "id": lambda m: m["headers"].update(id="another-id"),
    "a header more": lambda m: m["headers"].update(callbacks=[{"task": "shop.steal"}]),
    "a header less": lambda m: m["headers"].pop("retries"),
    "a header of another type": lambda m: m["headers"].update(retries=False),
    "token": lambda m: m["headers"].update(rl_token="fresh"),
    "compression": lambda m: m["headers"].update(compression="application/x-gzip"),
    "content type": lambda m: m.update({"content-type": "application/x-python-serialize"}),
    "content encoding": lambda m: m.update({"content-encoding": "binary"}),
    "body": lambda m: m.update(body=base64.b64encode(b'[[2, "two"], {}, {}]').decode()),
    "body's own spare bits": lambda m: m.update(body=m["body"].replace("fV0=", "fV1=")),
    "body encoding": lambda m: m["properties"].update(body_encoding="utf-8"),
    "where its result goes": lambda m: m["properties"].update(reply_to="mine"),
    "routing": lambda m: m["properties"]["delivery_info"].update(routing_key="mine"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_each_change_is_noticed(change: Any) -> None:
    sealed = signed(message())
    change(sealed)
    seal = RING.judge(dumps(sealed).encode())
    assert seal.verdict is Verdict.CHANGED
    assert key_id(KEY) in refusal(seal, RING)


def test_a_stock_worker_may_put_a_message_back() -> None:
    sealed = loads(dumps(signed(message(moment={"a": 1}))))
    sealed["headers"]["redelivered"] = True
    sealed["properties"]["delivery_info"]["redelivered"] = True
    assert verdict(sealed) is Verdict.VERIFIED


@pytest.mark.parametrize("required", [True, False])
def test_a_message_with_the_envelope_of_another_is_one_that_nobody_signed(required: bool) -> None:
    ring = Keyring([KEY], required=required)
    copy_of_a_stock_retry = signed(message())
    copy_of_a_stock_retry["headers"]["retries"] = 1
    copy_of_a_stock_retry["properties"]["delivery_tag"] = "another-tag"
    seal = ring.judge(dumps(copy_of_a_stock_retry).encode())
    assert (seal.verdict, seal.key_id) == (Verdict.COPIED, key_id(KEY))
    assert bool(refusal(seal, ring)) is required


def test_where_the_headers_end_and_the_body_begins_is_signed_too() -> None:
    short, long = message(), message()
    short["body"], long["body"] = "}x", "x"
    assert signed(short)["headers"][HEADER] != signed(long)["headers"][HEADER]


def test_the_first_key_signs_and_all_verify() -> None:
    old, both, new = Keyring([OTHER]), Keyring([KEY, OTHER]), Keyring([KEY])
    assert both.ids == (key_id(KEY), key_id(OTHER))
    assert verdict(signed(message(), old), both) is Verdict.VERIFIED
    assert verdict(signed(message(), both), new) is Verdict.VERIFIED
    assert verdict(signed(message(), both), old) is Verdict.UNKNOWN_KEY


def test_an_unknown_key_is_named_beside_those_there_are() -> None:
    seal = RING.judge(dumps(signed(message(), Keyring([OTHER]))).encode())
    why = refusal(seal, RING)
    assert key_id(OTHER) in why
    assert key_id(KEY) in why
    assert KEY not in why


def test_an_envelope_under_the_wrong_key_id_is_noticed() -> None:
    sealed = signed(message(), Keyring([OTHER]))
    sealed["headers"][HEADER] = sealed["headers"][HEADER].replace(key_id(OTHER), key_id(KEY))
    assert verdict(sealed) is Verdict.CHANGED


@pytest.mark.parametrize("required", [True, False])
def test_unsigned_messages_run_unless_signatures_are_required(required: bool) -> None:
    ring = Keyring([KEY], required=required)
    seal = ring.judge(dumps(message()).encode())
    assert seal.verdict is Verdict.UNSIGNED
    assert bool(refusal(seal, ring)) is required


def test_who_has_no_key_checks_nothing() -> None:
    ring = Keyring()
    assert not ring.signs
    seal = ring.judge(dumps(signed(message())).encode())
    assert (seal.verdict, seal.key_id) == (Verdict.UNCHECKED, key_id(KEY))
    assert refusal(seal, ring) == ""


def test_an_envelope_of_a_newer_relier_is_left_to_it() -> None:
    seal = RING.judge(dumps(message(**{HEADER: f"2.{key_id(KEY)}.what/ever+it=holds"})).encode())
    assert seal == (Verdict.NEWER, 2, key_id(KEY))
    assert "version 2" in refusal(seal, RING)


@pytest.mark.parametrize(
    "odd", [7, "", "x", ["1"], {"a": 1}, "0.12345678.12345678." + "x" * 43, True]
)
def test_an_odd_envelope_is_malformed(odd: Any) -> None:
    assert verdict(message(**{HEADER: odd})) is Verdict.MALFORMED


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"\xff", b"7", b"[" * 100_000, b'{"headers":[]}']
)
def test_what_is_no_task_message_is_not_judged(raw: bytes) -> None:
    assert verdict(raw) is Verdict.NO_TASK


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | VALUES.map(_as_json))
def test_nothing_that_lies_in_a_queue_breaks_the_judge(raw: bytes) -> None:
    assert RING.judge(raw).verdict in (Verdict.NO_TASK, Verdict.UNSIGNED, Verdict.MALFORMED)


@pytest.mark.parametrize(
    ("place", "word", "verdict_then"),
    [
        ('"headers": {', '"task": "shop.steal", ', Verdict.VERIFIED),
        ('"headers": {', '"\\u0074ask": "shop.steal", ', Verdict.VERIFIED),
        ('"properties": {', '"reply_to": "mine", ', Verdict.VERIFIED),
    ],
)
def test_of_names_that_come_twice_judge_and_worker_believe_the_same(
    place: str, word: str, verdict_then: Verdict
) -> None:
    text = dumps(signed(message()))
    ahead = text.replace(place, place + word, 1)
    assert verdict(ahead.encode()) is verdict_then
    assert loads(ahead) == loads(text)
    name = word.partition(":")[0].replace("\\u0074", "t")
    behind = re.sub(
        rf"{re.escape(name)}: \"[^\"]*\"", lambda m: f"{m[0]}, {word[:-2]}", text, count=1
    )
    assert verdict(behind.encode()) is Verdict.CHANGED
    assert loads(behind) != loads(text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_what_kombu_would_not_read_is_not_judged(encoding: str) -> None:
    assert verdict(dumps(signed(message())).encode(encoding)) is Verdict.NO_TASK


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), "\ud800", 10**400])
def test_odd_values_that_kombu_can_write_verify_too(odd: Any) -> None:
    sealed = signed(message(odd=odd))
    assert verdict(sealed) is Verdict.VERIFIED
    sealed["headers"]["id"] = "another"
    assert verdict(sealed) is Verdict.CHANGED


def test_a_key_shows_nowhere() -> None:
    ring = Keyring([KEY])
    assert KEY not in repr(ring)
    assert key_id(KEY) in repr(ring)
    assert len(key_id(KEY)) == 8
