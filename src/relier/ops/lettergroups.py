"""Dead letters by their error: what died of one cause, how often, since when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from relier.ops.lettersearch import Filter, queues_of
from relier.protocol.fingerprint import fingerprint
from relier.store import reading
from relier.store.client import Store
from relier.store.reading import Span, Summary

MOST_LOOKED_AT = 2000
"""Groups, and letters without a fingerprint, that one listing looks at."""


@dataclass(frozen=True, slots=True)
class Group:
    """The letters of one fingerprint.

    Args:
        first_ms, last_ms: when the first and the last of them died.
        task, reason, error: of the last of them.
        example_id: its id.
    """

    fingerprint: str
    count: int
    first_ms: int
    last_ms: int
    task: str
    reason: str
    error: str
    example_id: str
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups with the most letters first.

    Args:
        total: how many groups there are in these queues, whatever else was asked for.
        looked_at: how many of them were looked at.
        letters: how many letters there are in these queues.
        unread: letters of an older relier that carry no fingerprint and were not looked at.
    """

    rows: tuple[Group, ...]
    total: int
    looked_at: int
    letters: int
    unread: int
    limit: int
    now_ms: int


def groups(store: Store, chosen: Filter, *, limit: int = 50) -> Groups:
    """List the groups of dead letters, those with the most first.

    Args:
        chosen: which letters count.
        limit: most rows.
    """
    now_ms = reading.now_ms(store)
    window = chosen.window(now_ms)
    queues = queues_of(store, chosen)
    most = max(MOST_LOOKED_AT // max(len(queues), 1), 1)
    found: list[Group] = []
    total = looked_at = unread = 0
    for queue in queues:
        counts = reading.group_counts(store, queue, most)
        total, looked_at = total + counts.groups, looked_at + len(counts.by_group)
        found += _indexed(store, queue, list(counts.by_group), window)
        if counts.unindexed:
            old = _of_an_older_relier(store, queue, window, most)
            found += old
            unread += max(counts.unindexed - len(old), 0)
    rows = [each for each in _merged(found) if _meant(each, chosen)]
    rows.sort(key=lambda each: (each.count, each.last_ms), reverse=True)
    letters = reading.count_dead(store, [(each, "") for each in queues])
    return Groups(tuple(rows[:limit]), total, looked_at, letters, unread, limit, now_ms)


def _indexed(
    store: Store, queue: str, names: list[str], window: tuple[int, int]
) -> Iterator[Group]:
    spans = reading.group_spans(store, [(queue, each) for each in names], *window)
    alive = [(name, span) for name, span in zip(names, spans, strict=True) if span]
    summaries = reading.letter_summaries(store, [(queue, span.last_id) for _, span in alive])
    for (name, span), summary in zip(alive, summaries, strict=True):
        yield _group(queue, name, span, summary)


def _of_an_older_relier(
    store: Store, queue: str, window: tuple[int, int], most: int
) -> list[Group]:
    """Return a group of one for each of the newest letters that carries no fingerprint."""
    newest = list(islice(reading.dead_between(store, queue, *window), most))
    summaries = reading.letter_summaries(store, [(queue, each) for each, _ in newest])
    old = [
        (letter_id, at_ms, summary)
        for (letter_id, at_ms), summary in zip(newest, summaries, strict=True)
        if summary.reason and not summary.fingerprint
    ]
    tracebacks = reading.letter_tracebacks(store, [(queue, each[0]) for each in old])
    return [
        _group(
            queue,
            fingerprint(summary.name, summary.reason, summary.error, traceback),
            Span(1, letter_id, at_ms, letter_id, at_ms),
            summary,
        )
        for (letter_id, at_ms, summary), traceback in zip(old, tracebacks, strict=True)
    ]


def _group(queue: str, name: str, span: Span, summary: Summary) -> Group:
    return Group(
        fingerprint=name,
        count=span.letters,
        first_ms=span.first_ms,
        last_ms=span.last_ms,
        task=summary.name,
        reason=summary.reason,
        error=summary.error,
        example_id=span.last_id,
        queues=(queue,),
    )


def _merged(found: Iterable[Group]) -> Iterable[Group]:
    """Return one group for each fingerprint, whatever the queue."""
    merged: dict[str, Group] = {}
    for each in found:
        known = merged.get(each.fingerprint)
        merged[each.fingerprint] = each if known is None else _both(known, each)
    return merged.values()


def _both(one: Group, other: Group) -> Group:
    last, first = (one, other) if one.last_ms >= other.last_ms else (other, one)
    return replace(
        last,
        count=last.count + first.count,
        first_ms=min(last.first_ms, first.first_ms),
        queues=tuple(sorted({*last.queues, *first.queues})),
    )


def _meant(group: Group, chosen: Filter) -> bool:
    if chosen.fingerprint and group.fingerprint != chosen.fingerprint:
        return False
    return chosen.fits(Summary(group.reason, group.task, group.error, group.fingerprint))
