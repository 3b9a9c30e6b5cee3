"""`rl slo`."""

from __future__ import annotations

import math

import click

from relier.cli import common, words
from relier.cli.ages import age_ms
from relier.cli.common import Asked
from relier.config.objectives import latency_words
from relier.ops import queues
from relier.ops import slo as levels
from relier.ops.slo import Alert, Kept, Line, TaskRow
from relier.protocol.burnrate import FEWEST_BAD, PERIOD_S, used_up_in_s

_FAIL_ON = click.option(
    "--fail-on",
    type=click.Choice(["burn"]),
    help="Exit with status 1 while a budget burns too fast, for scripts.",
)
_NO_TASKS = (
    "No task has ended in that time, as far as relier knows: it counts those that its workers run."
)


@click.group()
def slo() -> None:
    """Objectives: what share of the tasks succeeds, and in time; and how fast the rest is used up.

    They are settings: RELIER_SLO for all tasks (99.9%, 95%@30s), RELIER_SLO_TASKS by name
    (billing.*=99.95%; reports.make=90%@10min). A task is good when it succeeds; it is bad when it
    fails for good, expires, or is given up unrun. One that was revoked, or that asked to be
    ignored, is neither. A latency is that of the caller: from the dispatch, or when the task was
    due, to the end, retries included.
    """


@slo.command()
@_FAIL_ON
@common.command
def status(asked: Asked, fail_on: str | None) -> int:
    """Show how fast the error budgets burn.

    At a rate of 1 a budget lasts for just 30 days. After the Google SRE workbook, chapter 5: page
    while the rate is above 14.4 over 1 h and 5 min, or above 6 over 6 h and 30 min; write a ticket
    while it is above 1 over 3 d and 6 h. A condition needs 3 failures in its longer window: "too
    few" are no trend.

    \b
    Example: rl slo status --fail-on burn
    """
    found = levels.status(asked.broker)
    failed = common.FAILED if fail_on and found.burning else 0
    if asked.answer(found):
        return failed
    console = common.console()
    windows = [_window(each.window_s) for each in found.objectives[0].windows]
    headers = ("tasks", "objective", *windows, "events", "state")
    console.print(words.table(headers, map(_status_row, found.objectives)))
    for line in found.objectives:
        for alert in line.alerts:
            if said := _said(line, alert):
                console.print(said, soft_wrap=True)
    if all(line.state == "no data" for line in found.objectives):
        console.print("\nNo data: no task has ended in the last 3 d that an objective is about.")
    return failed


@slo.command()
@click.option(
    "--since",
    "ago_ms",
    default="3d",
    show_default=True,
    callback=age_ms,
    metavar="AGE",
    help="How far back, at most 3d: 30m, 6h, 1h30m.",
)
@click.option("--queue", metavar="QUEUE", help="Only tasks that were run from this queue.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Most names."
)
@_FAIL_ON
@common.command
def report(asked: Asked, ago_ms: int, queue: str | None, limit: int, fail_on: str | None) -> int:
    """Show how objectives were kept.

    And how the tasks of each name ended, and how fast. Latencies are rounded up to one of those
    that are told apart. What is asked for is rounded up to whole minutes, and beyond 2 h to whole
    half hours. --fail-on burn fails when more than the budget of this time was used up, by 3
    failures or more.

    \b
    Example: rl slo report --since 6h
    """
    if not 0 < ago_ms <= levels.LONGEST_MS:
        raise click.BadParameter(
            "counts are kept for 3 days: ask for 3d or less", param_hint="--since"
        )
    store = asked.broker.store
    if queue is not None and not queues.is_known(store, queue):
        hint = "`rl queue list` shows those there are"
        raise common.unknown("queue", queue, queues.known(store), hint)
    found = levels.report(asked.broker, ago_ms, queue=queue, limit=limit)
    failed = common.FAILED if fail_on and found.burning else 0
    if asked.answer(found):
        return failed
    console = common.console()
    since = words.clock(found.since_ms)[:16]
    console.print(f"Since {since} ({words.span(found.at_ms - found.since_ms)}):\n")
    headers = ("tasks", "objective", "events", "bad", "kept", "budget used", "state")
    console.print(words.table(headers, map(_kept_row, found.objectives)))
    console.print()
    if not found.tasks:
        console.print(_NO_TASKS)
        return failed
    headers = ("task", "succeeded", "failed", "expired", "dead", "excused", "success")
    console.print(words.table((*headers, "p50", "p95", "p99"), map(_task_row, found.tasks)))
    if found.total > len(found.tasks):
        console.print(f"{len(found.tasks)} of {found.total}; --limit shows more.")
    return failed


def _status_row(line: Line) -> tuple[object, ...]:
    rates = [_rate(each.burn_rate) for each in line.windows]
    events = max(each.events for each in line.windows)
    return (_tasks(line.tasks), line.objective, *rates, f"{events:,}", words.styled(line.state))


def _said(line: Line, alert: Alert) -> str:
    """Return a condition that holds in words; "" for one that does not."""
    long, short = _window(alert.long_s), _window(alert.short_s)
    whose = words.safe(f"{_tasks(line.tasks)}, {line.objective}")
    rates = (
        f"burns at {_rate(alert.long_rate)} over {long} and {_rate(alert.short_rate)} over {short}"
    )
    if alert.state == "burning":
        assert alert.long_rate is not None
        gone = words.span(used_up_in_s(alert.long_rate) * 1000)
        budget = f"the budget of {_window(PERIOD_S)} lasts {gone}"
        return f"{alert.severity}: {whose}: {rates}; at that rate {budget}."
    if alert.state == "too few":
        return f"too few: {whose}: {rates}, but by fewer than {FEWEST_BAD} failures."
    return ""


def _kept_row(kept: Kept) -> tuple[object, ...]:
    state = "ok" if kept.events else "no data"
    if kept.budget_used_percent is not None and kept.budget_used_percent > 100 + 1e-6:
        state = "missed" if kept.burning else "too few"
    return (
        _tasks(kept.tasks),
        kept.objective,
        f"{kept.events:,}",
        f"{kept.bad:,}",
        _percent(kept.good_percent),
        "-" if kept.budget_used_percent is None else f"{kept.budget_used_percent:,.0f}%",
        words.styled(state),
    )


def _task_row(row: TaskRow) -> tuple[object, ...]:
    counts = (row.succeeded, row.failed, row.expired, row.dead, row.excused)
    latencies = (row.p50_ms, row.p95_ms, row.p99_ms)
    return (
        "(others)" if row.name == "*" else row.name,
        *(f"{count:,}" for count in counts),
        _percent(row.success_percent),
        *map(_latency, latencies),
    )


def _window(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds // 60} min"


def _tasks(pattern: str) -> str:
    return "all" if pattern == "*" else pattern


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"


def _percent(share: float | None) -> str:
    """Return a share that never looks better than it is: 99.996 % is not 100 %."""
    if share is None:
        return "-"
    return f"{math.floor(share * 1000) / 1000:.8g}%"


def _latency(latency_ms: float | None) -> str:
    if latency_ms is None:
        return "-"
    return "> 6 h" if math.isinf(latency_ms) else latency_words(int(latency_ms))
