"""Whether the service level objectives are met, and how fast their error budgets are used up."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from relier.config.objectives import Objective
from relier.protocol import burnrate
from relier.protocol.burnrate import FEWEST_BAD, WINDOWS_S, Events, Judged, State
from relier.protocol.tally import (
    DEAD,
    EXCUSED,
    EXPIRED,
    FAILED,
    HALF_HOUR_MS,
    MINUTE_MS,
    MINUTES_KEPT,
    SUCCEEDED,
    percentile_ms,
)
from relier.store import reading
from relier.store.broker import Broker
from relier.store.fleet import known_queues
from relier.store.reading import Counts

LONGEST_MS = 3 * 24 * 3_600_000
"""How far back a report can reach."""

_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Window:
    """What happened within one window; the rate is None where nothing did."""

    window_s: int
    events: int
    bad: int
    burn_rate: float | None


@dataclass(frozen=True, slots=True)
class Alert:
    """One condition of the workbook.

    Args:
        state: "ok", "burning", "too few" (the rates are above it, for too few failures to tell) or
            "no data".
        reachable: whether this objective could ever be missed so fast.
    """

    severity: str
    long_s: int
    short_s: int
    threshold: float
    long_rate: float | None
    short_rate: float | None
    state: str
    reachable: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One objective, and how fast its budget is used up.

    Args:
        tasks: whose: a name or a pattern, "*" for all.
        objective: in words.
        latency_ms: None for an objective of success.
        state: "page" or "ticket" when a condition holds, else "too few", "no data" or "ok".
    """

    tasks: str
    objective: str
    percent: float
    latency_ms: int | None
    windows: tuple[Window, ...]
    alerts: tuple[Alert, ...]
    state: str


@dataclass(frozen=True, slots=True)
class Status:
    """All objectives at one moment; ``burning`` when a condition of any holds."""

    cluster: str
    at_ms: int
    queues: tuple[str, ...]
    objectives: tuple[Line, ...]
    burning: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """How well one objective was kept over the time of a report.

    Args:
        good_percent: None when there were no events.
        budget_used_percent: of what the objective allows over just this time.
        burning: whether more was used up than that, by enough failures to tell.
    """

    tasks: str
    objective: str
    events: int
    bad: int
    good_percent: float | None
    budget_used_percent: float | None
    burning: bool


@dataclass(frozen=True, slots=True)
class TaskRow:
    """How the tasks of one name ended; "*" for those whose names are not known, or too many.

    Args:
        dead: never ran: unreadable, not vouched for, or nobody could run them.
        excused: revoked, purged, or ignored as they asked; neither good nor bad.
        success_percent: of all that are not excused; None when there are none.
        p50_ms, p95_ms, p99_ms: what successes took at most, from when they were due, rounded up to
            a latency that is told apart; None without any, or beyond the longest (6 h).
    """

    name: str
    succeeded: int
    failed: int
    expired: int
    dead: int
    excused: int
    success_percent: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What ended since a moment; ``total`` names, of which ``tasks`` are the worst."""

    cluster: str
    at_ms: int
    since_ms: int
    queues: tuple[str, ...]
    objectives: tuple[Kept, ...]
    tasks: tuple[TaskRow, ...]
    total: int
    burning: bool


def status(broker: Broker) -> Status:
    """Judge every objective by the conditions of the SRE workbook (see ``protocol.burnrate``)."""
    store, objectives = broker.store, broker.settings.objectives
    queues, now_ms = known_queues(store), reading.now_ms(store)
    windows = _windows(broker, queues, now_ms, objectives)
    lines = tuple(
        _line(objective, {each: found[i] for each, found in windows.items()})
        for i, objective in enumerate(objectives)
    )
    return Status(
        cluster=broker.settings.cluster_name,
        at_ms=now_ms,
        queues=tuple(queues),
        objectives=lines,
        burning=any(a.state == State.BURNING for line in lines for a in line.alerts),
    )


def report(broker: Broker, ago_ms: int, *, queue: str | None = None, limit: int = 50) -> Report:
    """Add up what ended lately.

    Args:
        ago_ms: how far back, at most ``LONGEST_MS``; rounded up to whole minutes, and beyond two
            hours to whole half hours.
        queue: only what was run from this queue.
        limit: how many tasks' names, those with most failures first.
    """
    store, objectives = broker.store, broker.settings.objectives
    queues = known_queues(store) if queue is None else [queue]
    now_ms = reading.now_ms(store)
    size_ms = MINUTE_MS if ago_ms <= MINUTES_KEPT * MINUTE_MS else HALF_HOUR_MS
    past = math.ceil(min(ago_ms, LONGEST_MS) / size_ms)
    read = reading.ended_by_minute if size_ms == MINUTE_MS else reading.ended_by_half_hour
    counts: Counts = Counter()
    for each in read(store, queues, now_ms, past).values():
        counts.update(each)
    kept = tuple(
        _kept(objective, events)
        for objective, events in zip(objectives, Sorter(objectives).sort([counts]), strict=True)
    )
    rows = _rows(counts)
    return Report(
        cluster=broker.settings.cluster_name,
        at_ms=now_ms,
        since_ms=(now_ms // size_ms - past) * size_ms,
        queues=tuple(queues),
        objectives=kept,
        tasks=tuple(rows[:limit]),
        total=len(rows),
        burning=any(each.burning for each in kept),
    )


class Sorter:
    """Sorts ends into good and bad ones, for each objective that they concern.

    Args:
        objectives: in the order of the answers.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        self._patterns = [
            re.compile(".*".join(map(re.escape, each.tasks.split("*"))), re.DOTALL)
            for each in objectives
        ]
        self._concerned: dict[str, list[int]] = {}

    def sort(self, buckets: Iterable[Counts]) -> list[Events]:
        """Return the events of each objective.

        A success counts for an objective of latency when its latency was measured, a failure never:
        it is bad enough for the other one, and a quick one is not to look good.
        """
        good, bad = [0] * len(self._objectives), [0] * len(self._objectives)
        for counts in buckets:
            for (how, most_ms, name), count in counts.items():
                if how == EXCUSED:
                    continue
                for i in self._of(name):
                    limit_ms = self._objectives[i].latency_ms
                    if limit_ms is None:
                        is_good = how == SUCCEEDED
                    elif most_ms is None:
                        continue
                    else:
                        is_good = most_ms <= limit_ms
                    (good if is_good else bad)[i] += count
        return list(map(Events, good, bad))

    def _of(self, name: str) -> list[int]:
        if name not in self._concerned:
            fits = [i for i, pattern in enumerate(self._patterns) if pattern.fullmatch(name)]
            self._concerned[name] = fits
        return self._concerned[name]


def _windows(
    broker: Broker, queues: Sequence[str], now_ms: int, objectives: Sequence[Objective]
) -> dict[int, list[Events]]:
    """Return for each window the events of each objective.

    A window begins with the minute, or beyond an hour with the half hour, in which it begins.
    """
    store, sorter = broker.store, Sorter(objectives)
    minutes = reading.ended_by_minute(store, queues, now_ms, _HOUR_S * 1000 // MINUTE_MS)
    halves = reading.ended_by_half_hour(store, queues, now_ms, WINDOWS_S[-1] * 1000 // HALF_HOUR_MS)
    found = {}
    for window_s in WINDOWS_S:
        buckets, size_ms = (minutes, MINUTE_MS) if window_s <= _HOUR_S else (halves, HALF_HOUR_MS)
        first_ms = (now_ms - window_s * 1000) // size_ms * size_ms
        found[window_s] = sorter.sort(counts for at, counts in buckets.items() if at >= first_ms)
    return found


def _line(objective: Objective, windows: Mapping[int, Events]) -> Line:
    judged = burnrate.judge(windows, objective.budget)
    return Line(
        tasks=objective.tasks,
        objective=objective.words,
        percent=objective.percent,
        latency_ms=objective.latency_ms,
        windows=tuple(
            Window(each, events.total, events.bad, burnrate.burn_rate(events, objective.budget))
            for each, events in windows.items()
        ),
        alerts=tuple(_alert(each, objective.budget) for each in judged),
        state=_worst(judged),
    )


def _alert(judged: Judged, budget: float) -> Alert:
    condition = judged.condition
    return Alert(
        severity=condition.severity,
        long_s=condition.long_s,
        short_s=condition.short_s,
        threshold=condition.rate,
        long_rate=judged.long_rate,
        short_rate=judged.short_rate,
        state=judged.state.value,
        reachable=burnrate.reachable(condition, budget),
    )


def _worst(judged: Sequence[Judged]) -> str:
    for each in judged:
        if each.state == State.BURNING:
            return each.condition.severity
    states = {each.state for each in judged}
    if State.FEW in states:
        return State.FEW.value
    return State.NO_DATA.value if states == {State.NO_DATA} else State.OK.value


def _kept(objective: Objective, events: Events) -> Kept:
    rate = burnrate.burn_rate(events, objective.budget)
    return Kept(
        tasks=objective.tasks,
        objective=objective.words,
        events=events.total,
        bad=events.bad,
        good_percent=100 * events.good / events.total if events.total else None,
        budget_used_percent=None if rate is None else 100 * rate,
        burning=rate is not None and rate > 1 + 1e-9 and events.bad >= FEWEST_BAD,
    )


def _rows(counts: Counts) -> list[TaskRow]:
    """Return a row for each name, those with most failures first."""
    by_name: dict[str, Counts] = {}
    for cell, count in counts.items():
        by_name.setdefault(cell.name, Counter())[cell] = count
    rows = [_row(name, own) for name, own in by_name.items()]
    return sorted(rows, key=lambda row: (-_failures(row), -row.succeeded, row.name))


def _row(name: str, counts: Counts) -> TaskRow:
    ends: Counter[str] = Counter()
    latencies: Counter[float] = Counter()
    for cell, count in counts.items():
        ends[cell.how] += count
        if cell.most_ms is not None:
            latencies[cell.most_ms] += count
    judged = sum(ends.values()) - ends[EXCUSED]
    return TaskRow(
        name=name,
        succeeded=ends[SUCCEEDED],
        failed=ends[FAILED],
        expired=ends[EXPIRED],
        dead=ends[DEAD],
        excused=ends[EXCUSED],
        success_percent=100 * ends[SUCCEEDED] / judged if judged else None,
        p50_ms=percentile_ms(latencies, 0.5),
        p95_ms=percentile_ms(latencies, 0.95),
        p99_ms=percentile_ms(latencies, 0.99),
    )


def _failures(row: TaskRow) -> int:
    return row.failed + row.expired + row.dead
