"""How long a task may run: its soft and hard timeouts, and what is done at each moment.

All times are seconds from the moment at which the body begins, on one process's monotonic clock.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

GRACE_S = 0.15
"""What a cancelled coroutine has for its own cleaning up before its process is stopped."""

What = Literal["soft", "cancel", "stop"]


class Limits(NamedTuple):
    """How long one task may run.

    Args:
        soft_s: seconds until its soft timeout, or None.
        hard_s: seconds until its hard timeout, or None.
    """

    soft_s: float | None = None
    hard_s: float | None = None


class Moment(NamedTuple):
    """What is due, and how many seconds after the body's begin.

    "soft": tell people, run the hook. "cancel": cancel the coroutine. "stop": it had its time, and
    nobody asks it any more.
    """

    after_s: float
    what: What


def limits(
    soft_s: float | None,
    hard_s: float | None,
    *,
    default_soft_s: float | None = None,
    default_hard_s: float | None = None,
) -> Limits:
    """Return a task's limits: its own, else the settings'; infinity is none at all.

    Raises:
        ValueError: one is no positive number, or the soft one is not below the hard one.
    """
    for name, value in (("soft_timeout", soft_s), ("hard_timeout", hard_s)):
        _check_seconds(name, value)
    soft = _finite(default_soft_s if soft_s is None else soft_s)
    hard = _finite(default_hard_s if hard_s is None else hard_s)
    if soft is None or hard is None or soft < hard:
        return Limits(soft, hard)
    if soft_s is None and hard_s is not None:
        # The task's own hard timeout comes before the general soft one is ever due.
        return Limits(None, hard)
    raise ValueError(
        f"soft_timeout ({soft:g} s) must be below hard_timeout ({hard:g} s"
        f"{', from RELIER_HARD_TIMEOUT' if hard_s is None else ''}): "
        "the task would be stopped before its soft timeout"
    )


def check_hook(hook: object) -> None:
    """Check that a soft timeout's hook can be called with the task's context.

    Raises:
        ValueError: it cannot.
    """
    if hook is None:
        return
    if not callable(hook):
        raise ValueError(
            f"on_soft_timeout must be a function that takes the task's context, not {hook!r}"
        )
    try:
        inspect.signature(hook).bind(object())
    except TypeError:
        raise ValueError(
            f"on_soft_timeout={_name(hook)} must take one argument, the task's context: "
            "def hook(ctx), or async def hook(ctx)"
        ) from None
    except ValueError:
        return  # a builtin that does not tell its signature


def plan(allowed: Limits, *, runs_coroutine: bool) -> tuple[Moment, ...]:
    """Return what is due in an execution, in order."""
    moments = []
    if allowed.soft_s is not None:
        moments.append(Moment(allowed.soft_s, "soft"))
    if allowed.hard_s is not None:
        grace_s = GRACE_S if runs_coroutine else 0.0
        if runs_coroutine:
            moments.append(Moment(allowed.hard_s, "cancel"))
        moments.append(Moment(allowed.hard_s + grace_s, "stop"))
    return tuple(moments)


def overdue(name: str, hard_s: float, option: str = "hard_timeout") -> str:
    """Return the message of a task's ``HardTimeoutError``, stopped for its option's sake."""
    return (
        f"{name} ran longer than its hard timeout of {hard_s:g} s and was stopped; "
        f"mend it or raise its {option}, then `rl dlq release`"
    )


def _check_seconds(name: str, value: object) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value > 0:  # type: ignore[operator]  # NaN is not above 0 either
        raise ValueError(f"{name}={value!r} must be a number of seconds above 0")


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else float(seconds)


def _name(hook: Callable[..., Any]) -> str:
    return getattr(hook, "__name__", repr(hook))
