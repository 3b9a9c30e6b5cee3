"""What makes two calls the same call."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json

from relier.errors import PayloadError
from relier.protocol.idempotency import NotCanonicalError, digest
from relier.worker.idempotency import CallKey

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])) | st.datetimes()
    | st.decimals(allow_nan=False) | st.uuids() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=10,
)  # fmt: skip


def charge(
    customer: str, cents: int = 100, *flags: str, currency: str = "EUR", **more: Any
) -> None:
    """Stand for a task's function."""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        ({"a": 1, "b": 2}, OrderedDict([("b", 2), ("a", 1)])),
        (1.0, float.fromhex("0x1p0")),
    ],
)
def test_what_is_the_same(one: object, other: object) -> None:
    assert digest(one) == digest(other)


def test_what_is_not_the_same() -> None:
    values: list[object] = [
        None, "", 0, 1, 1.0, True, "1", "None", [], {}, [[]], b"1", b"", Decimal(1), Decimal("1.0"),
        2**70, str(2**70), date(2026, 1, 2), "2026-01-02", datetime(2026, 1, 2, tzinfo=UTC),
        timedelta(1), UUID(int=1), str(UUID(int=1)), {"a": [1]}, {"a": 1}, [1, 2], [2, 1], [[1], 2],
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)


@given(PLAIN)
def test_a_key_outlives_the_journey_through_a_message(value: Any) -> None:
    assert digest(json.loads(json.dumps(value))) == digest(value)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, float("nan"), float("inf"), {1: 2}, "\ud800", print, {"a": [set()]}]
)
def test_what_has_no_canonical_form_is_an_error(value: object) -> None:
    with pytest.raises(NotCanonicalError):
        digest(value)


def test_what_contains_itself_is_an_error() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(NotCanonicalError, match="too deeply"):
        digest(value)


def test_arguments_are_bound_to_the_signature() -> None:
    key = CallKey("pay", charge, None)
    same = {
        key.of(("cus",), {}),
        key.of(("cus", 100), {}),
        key.of((), {"customer": "cus"}),
        key.of(["cus"], {"currency": "EUR", "cents": 100}),
    }
    assert len(same) == 1
    [name] = same
    assert name.startswith("pay:")
    assert len(name) == len("pay:") + 64
    others = {
        key.of(("cus", 101), {}),
        key.of(("cus", 100, "x"), {}),
        key.of(("cus",), {"note": "x"}),
        key.of(("cus",), {"currency": "USD"}),
    }
    assert len(others | same) == 5


def test_a_function_may_say_what_makes_calls_equal() -> None:
    key = CallKey("pay", charge, lambda customer, **_: customer.lower())
    assert key.of(("CUS",), {"cents": 1}) == key.of(("cus",), {"cents": 2})
    assert key.of(("cus",), {}) != CallKey("refund", charge, None).of(("cus",), {})


def test_the_error_says_what_to_do() -> None:
    with pytest.raises(PayloadError, match=r"\.customer is a set.*idempotency_key="):
        CallKey("pay", charge, None).of(({1},), {})
