from __future__ import annotations

import functools
import math
from typing import Any

import pytest

from relier.protocol.timeouts import GRACE_S, Limits, check_hook, limits, plan


@pytest.mark.parametrize(
    ("own", "defaults", "expected"),
    [
        ((None, None), (None, None), Limits()),
        ((8, 10), (None, None), Limits(8.0, 10.0)),
        ((None, None), (8.0, 10.0), Limits(8.0, 10.0)),
        ((1, 2), (8.0, 10.0), Limits(1.0, 2.0)),
        ((None, 20), (8.0, 10.0), Limits(8.0, 20.0)),
        # A general soft timeout that a task's own hard one comes before is never due.
        ((None, 5), (8.0, 10.0), Limits(None, 5.0)),
        ((math.inf, math.inf), (8.0, 10.0), Limits()),
        ((8, math.inf), (None, 5.0), Limits(8.0, None)),
    ],
)
def test_a_tasks_own_limits_are_stronger_than_the_settings(
    own: Any, defaults: Any, expected: Limits
) -> None:
    soft, hard = defaults
    assert limits(*own, default_soft_s=soft, default_hard_s=hard) == expected


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, "5", True])
@pytest.mark.parametrize("name", ["soft_timeout", "hard_timeout"])
def test_a_limit_is_a_positive_number(name: str, value: Any) -> None:
    own = (value, None) if name == "soft_timeout" else (None, value)
    with pytest.raises(ValueError, match=f"{name}=.* must be a number of seconds above 0"):
        limits(*own)


@pytest.mark.parametrize(("soft", "hard"), [(2, 2), (3, 2)])
def test_a_soft_timeout_is_below_the_hard_one(soft: float, hard: float) -> None:
    with pytest.raises(ValueError, match="must be below hard_timeout"):
        limits(soft, hard)
    with pytest.raises(ValueError, match="RELIER_HARD_TIMEOUT"):
        limits(soft, None, default_hard_s=hard)


def test_a_coroutine_is_asked_before_it_is_stopped() -> None:
    assert plan(Limits(1.0, 2.0), runs_coroutine=False) == ((1.0, "soft"), (2.0, "stop"))
    assert plan(Limits(1.0, 2.0), runs_coroutine=True) == (
        (1.0, "soft"),
        (2.0, "cancel"),
        (2.0 + GRACE_S, "stop"),
    )
    assert plan(Limits(), runs_coroutine=True) == ()


def _takes_context(ctx: object, more: int = 0) -> None: ...


class _Hook:
    async def __call__(self, ctx: object) -> None: ...


@pytest.mark.parametrize(
    "hook", [None, _takes_context, functools.partial(_takes_context, more=1), _Hook(), print]
)
def test_a_hook_takes_the_context(hook: Any) -> None:
    check_hook(hook)


@pytest.mark.parametrize("hook", [5, "hook", lambda: None, lambda ctx, more: None])
def test_what_cannot_take_the_context_is_no_hook(hook: Any) -> None:
    with pytest.raises(ValueError, match="on_soft_timeout"):
        check_hook(hook)
