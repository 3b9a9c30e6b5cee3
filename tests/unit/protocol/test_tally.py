from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relier.protocol.tally import FAILED, SUCCEEDED, Cell, cell, percentile_ms


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("s|500|shop.pay", Cell(SUCCEEDED, 500, "shop.pay")),
        ("s|inf|shop.pay", Cell(SUCCEEDED, math.inf, "shop.pay")),
        ("s||shop.pay", Cell(SUCCEEDED, None, "shop.pay")),
        ("f||odd|name|", Cell(FAILED, None, "odd|name|")),
        ("+", None),
        ("x||newer", None),
        ("s|soon|newer", None),
        ("", None),
    ],
)
def test_a_field_is_read_or_left_alone(field: str, expected: Cell | None) -> None:
    assert cell(field) == expected


def test_percentiles_are_latencies_that_are_told_apart() -> None:
    counts = {100: 90, 500: 9, math.inf: 1}
    assert [percentile_ms(counts, share) for share in (0.5, 0.9, 0.91, 0.99, 1.0)] == [
        100,
        100,
        500,
        500,
        math.inf,
    ]
    assert percentile_ms({}, 0.5) is None


@given(
    st.dictionaries(st.integers(1, 50), st.integers(0, 100), max_size=10),
    st.floats(0.01, 1.0),
)
def test_a_percentile_is_the_least_that_enough_tasks_did_not_exceed(
    counts: dict[int, int], share: float
) -> None:
    found = percentile_ms({float(k): v for k, v in counts.items()}, share)
    total = sum(counts.values())
    if not total:
        assert found is None
        return
    assert found is not None

    def within(most: float) -> int:
        return sum(count for latency, count in counts.items() if latency <= most)

    assert within(found) >= share * total
    assert all(within(each) < share * total for each in counts if each < found and within(each))
