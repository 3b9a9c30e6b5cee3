"""What a task is held to: its limits, its hook, and what a pool cannot do for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from relier.protocol import outcome as outcomes
from relier.protocol import timeouts as rules
from relier.protocol.outcome import Outcome
from relier.protocol.timeouts import Limits, Moment


class Timing(NamedTuple):
    """What one task's executions are held to.

    Args:
        limits: its soft and hard timeout.
        moments: what is due when.
        hook: called at the soft timeout, or None.
        raises: whether its body is interrupted at the soft timeout.
        runs_coroutine: whether it is an ``async def``.
        name: the task's.
    """

    limits: Limits
    moments: tuple[Moment, ...]
    hook: Callable[[Any], Any] | None
    raises: bool
    runs_coroutine: bool
    name: str


def limits_of(task: Any) -> Limits:
    """Return a task's limits, its own or the settings'."""
    found: Limits | None = task.__dict__.get("_relier_limits")
    if found is None:
        settings = task.app.relier.settings
        found = task.__dict__["_relier_limits"] = rules.limits(
            task.soft_timeout,
            task.hard_timeout,
            default_soft_s=settings.soft_timeout_s,
            default_hard_s=settings.hard_timeout_s,
        )
    return found


def timing_of(task: Any) -> Timing | None:
    """Return what a task's executions are held to, or None when there is nothing."""
    limits = limits_of(task)
    if limits == Limits() and task.on_soft_timeout is None:
        return None
    return Timing(
        limits,
        rules.plan(limits, runs_coroutine=task.runs_coroutine),
        task.on_soft_timeout,
        bool(task.raise_on_soft),
        bool(task.runs_coroutine),
        task.name,
    )


def overdue(name: str, hard_s: float, option: str = "hard_timeout") -> Outcome:
    """Return the outcome of a task that others had to stop, for the sake of one of its options."""
    return outcomes.timed_out(rules.overdue(name, hard_s, option))


def what_a_pool_cannot(pool: str, tasks: Iterable[Any]) -> str:
    """Return what a pool cannot do for the timeouts of these tasks, or "" when it can do all."""
    if pool == "prefork":
        return ""
    timings = [timing for timing in map(timing_of, tasks) if timing is not None]
    said = []
    if any(each.limits.hard_s is not None for each in timings):
        said.append(
            "what blocks its thread, as every def task does, cannot be stopped at its hard "
            "timeout: it counts as failed on time (FAILURE, dead letter), what it does later is "
            "not committed, and it occupies the pool until it ends"
        )
    if pool != "solo" and any(each.raises and not each.runs_coroutine for each in timings):
        said.append("raise_on_soft cannot interrupt a def task")
    return f"timeouts under the {pool} pool: {'; '.join(said)}; prefork can" if said else ""
