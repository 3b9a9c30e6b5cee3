from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relier.protocol import burnrate
from relier.protocol.burnrate import (
    CONDITIONS,
    FEWEST_BAD,
    WINDOWS_S,
    Events,
    State,
    burn_rate,
    judge,
    reachable,
    used_up_in_s,
)

BUDGET = 0.001
counts = st.integers(0, 10**9)
budgets = st.floats(1e-6, 1.0)


def everywhere(events: Events) -> dict[int, Events]:
    return dict.fromkeys(WINDOWS_S, events)


def test_the_windows_are_the_workbooks() -> None:
    assert WINDOWS_S == (300, 1800, 3600, 21_600, 259_200)
    # A page at a rate of 14.4 over an hour has used up 2 % of the budget, and so on.
    used = [round(c.rate * c.long_s / burnrate.PERIOD_S, 6) for c in CONDITIONS]
    assert used == [0.02, 0.05, 0.1]


def test_a_rate_is_a_multiple_of_the_budget() -> None:
    assert burn_rate(Events(999, 1), BUDGET) == pytest.approx(1)
    assert burn_rate(Events(9856, 144), BUDGET) == pytest.approx(14.4)
    assert burn_rate(Events(10, 0), BUDGET) == 0
    assert burn_rate(Events(), BUDGET) is None
    assert used_up_in_s(1) == burnrate.PERIOD_S
    assert used_up_in_s(0) == math.inf


@pytest.mark.parametrize("budget", [0, -0.1, 1.1, math.nan])
def test_without_a_budget_there_is_no_rate(budget: float) -> None:
    with pytest.raises(ValueError, match="budget"):
        burn_rate(Events(1, 1), budget)


def test_nothing_is_no_data() -> None:
    assert {each.state for each in judge(everywhere(Events()), BUDGET)} == {State.NO_DATA}


def test_a_condition_needs_both_windows() -> None:
    page = CONDITIONS[0]
    bad, good = Events(900, 100), Events(1000, 0)
    for long, short, state in (
        (bad, bad, State.BURNING),
        (bad, good, State.OK),
        (good, bad, State.OK),
        (bad, Events(), State.OK),
    ):
        windows = everywhere(good) | {page.long_s: long, page.short_s: short}
        assert judge(windows, BUDGET)[0].state == state


def test_a_rate_that_is_just_the_conditions_is_within_it() -> None:
    at, above = Events(9856, 144), Events(9855, 145)
    assert judge(everywhere(at), BUDGET)[0].state == State.OK
    assert judge(everywhere(above), BUDGET)[0].state == State.BURNING
    assert judge(everywhere(Events(999_000, 1000)), BUDGET)[2].state == State.OK


def test_one_failure_of_few_is_no_trend() -> None:
    few = judge(everywhere(Events(7, FEWEST_BAD - 1)), BUDGET)
    assert {each.state for each in few} == {State.FEW}
    assert judge(everywhere(Events(0, FEWEST_BAD)), BUDGET)[0].state == State.BURNING


def test_what_no_failures_could_reach_is_said_to_be_so() -> None:
    assert [reachable(each, 0.1) for each in CONDITIONS] == [False, True, True]
    assert all(reachable(each, BUDGET) for each in CONDITIONS)


@given(counts, counts, budgets)
def test_a_rate_is_finite_and_never_above_that_of_nothing_but_failures(
    good: int, bad: int, budget: float
) -> None:
    rate = burn_rate(Events(good, bad), budget)
    if good + bad == 0:
        assert rate is None
    else:
        assert rate is not None
        assert 0 <= rate <= 1 / budget * (1 + 1e-9)
        assert (rate == 0) == (bad == 0)


@given(counts, counts, st.integers(1, 10**6), budgets)
def test_more_failures_never_calm_a_condition(
    good: int, bad: int, more: int, budget: float
) -> None:
    order = [State.NO_DATA, State.OK, State.FEW, State.BURNING]
    before = judge(everywhere(Events(good, bad)), budget)
    after = judge(everywhere(Events(good, bad + more)), budget)
    for one, other in zip(before, after, strict=True):
        assert order.index(one.state) <= order.index(other.state)
        if other.state == State.BURNING:
            assert reachable(other.condition, budget)


@given(st.lists(st.tuples(counts, counts), min_size=5, max_size=5), budgets)
def test_whatever_happened_every_condition_is_judged(
    found: list[tuple[int, int]], budget: float
) -> None:
    windows = {each: Events(*events) for each, events in zip(WINDOWS_S, found, strict=True)}
    for condition, judged in zip(CONDITIONS, judge(windows, budget), strict=True):
        assert judged.condition == condition
        burns = judged.state == State.BURNING
        assert not burns or windows[condition.long_s].bad >= FEWEST_BAD
        assert (judged.state == State.NO_DATA) == (windows[condition.long_s].total == 0)
