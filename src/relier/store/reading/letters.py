"""The dead letters of a queue."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from relier.store.client import Store
from relier.store.reading.replies import redis_of, text

_PAGE = 500
_SUMMARY = ("reason", "name", "error", "fp")
_SMALL = ("at_ms", "h", *_SUMMARY, "traceback", "cp", "runs", "deaths", "interruptions", "life")
_LARGE = ("parcel", "cd")
_SCANNED, _MOST_SCANS = 500, 400

LARGEST_BYTES = 10_000_000
"""A value of this size keeps Redis 7.0 busy for 4 to 5 ms, as long as one command may."""


class Summary(NamedTuple):
    """What a letter says in short; ``fingerprint`` is "" in one of an older relier."""

    reason: str
    name: str
    error: str
    fingerprint: str


class Span(NamedTuple):
    """The letters of one fingerprint in one queue: how many, and the first and last to die."""

    letters: int
    first_id: str
    first_ms: int
    last_id: str
    last_ms: int


class GroupCounts(NamedTuple):
    """The letters of one queue by fingerprint.

    Args:
        by_group: how many have each, for those that were asked for.
        groups: how many fingerprints there are.
        letters: how many letters there are, those without a fingerprint among them.
    """

    by_group: dict[str, int]
    groups: int
    letters: int

    @property
    def unindexed(self) -> int:
        """Return how many letters carry no fingerprint; 0 also where that cannot be told."""
        whole = len(self.by_group) == self.groups
        return max(self.letters - sum(self.by_group.values()), 0) if whole else 0

    @property
    def complete(self) -> bool:
        """Return whether these groups hold every letter of the queue."""
        whole = len(self.by_group) == self.groups
        return whole and sum(self.by_group.values()) == self.letters


class Extent(NamedTuple):
    """How many dead letters a queue has, and when the oldest died (0: there is none)."""

    letters: int
    oldest_ms: int


def dead(store: Store, queue: str, limit: int) -> list[tuple[str, int]]:
    """Return (letter id, ms of death) of up to ``limit`` dead letters, newest first."""
    found = redis_of(store).zrange(store.keys.dead(queue), 0, limit - 1, desc=True, withscores=True)
    return [_scored(pair) for pair in found]


def dead_between(
    store: Store,
    queue: str,
    oldest_ms: int,
    newest_ms: int,
    *,
    fingerprint: str = "",
    newest_first: bool = True,
) -> Iterator[tuple[str, int]]:
    """Yield (letter id, ms of death), page by page; letters may go while this is read.

    Args:
        fingerprint: only letters of this one.
    """
    keys = store.keys
    name = keys.group(queue, fingerprint) if fingerprint else keys.dead(queue)
    bound, end = (newest_ms, oldest_ms) if newest_first else (oldest_ms, newest_ms)
    seen: set[str] = set()
    while True:
        most = _PAGE + len(seen)
        reply = redis_of(store).zrange(
            name, bound, end, desc=newest_first, byscore=True, offset=0, num=most, withscores=True
        )
        found = [_scored(pair) for pair in reply]
        yield from (pair for pair in found if pair[0] not in seen)
        if len(found) < most:
            return
        # The next page begins within this page's last millisecond: an offset would miscount when
        # letters go meanwhile.
        seen = {letter_id for letter_id, at_ms in found if at_ms == found[-1][1]}
        bound = found[-1][1]


def count_dead(
    store: Store, places: Sequence[tuple[str, str]], window: tuple[int, int] | None = None
) -> int:
    """Return how many dead letters there are in some places.

    Args:
        places: (queue, fingerprint) of each; "" for all letters of the queue.
        window: only those that died between these two moments.
    """
    keys = store.keys
    with redis_of(store).pipeline(transaction=False) as pipe:
        for queue, fingerprint in places:
            name = keys.group(queue, fingerprint) if fingerprint else keys.dead(queue)
            if window is None:
                pipe.zcard(name)
            else:
                pipe.zcount(name, *window)
        return sum(pipe.execute())


def dead_extents(store: Store, queues: Sequence[str]) -> list[Extent]:
    """Return how many letters each queue has, and since when."""
    extents = []
    for start in range(0, len(queues), _PAGE):
        with redis_of(store).pipeline(transaction=False) as pipe:
            for queue in queues[start : start + _PAGE]:
                pipe.zcard(store.keys.dead(queue))
                pipe.zrange(store.keys.dead(queue), 0, 0, withscores=True)
            replies = iter(pipe.execute())
        for count, oldest in zip(replies, replies, strict=True):
            extents.append(Extent(count, _scored(oldest[0])[1] if oldest else 0))
    return extents


def letter(
    store: Store, queue: str, letter_id: str, *, whole: bool = False
) -> dict[str, bytes] | None:
    """Return one dead letter's fields, or None.

    Args:
        whole: whatever its size; else a message or state of more than ``LARGEST_BYTES`` is left
            out, which would keep the server busy for longer than it may be.
    """
    keys = store.keys
    sizes = dict.fromkeys(_LARGE, 0) if whole else letter_sizes(store, queue, letter_id)
    fields = [*_SMALL, *(each for each, size in sizes.items() if size <= LARGEST_BYTES)]
    with redis_of(store).pipeline(transaction=True) as pipe:
        pipe.zscore(keys.dead(queue), letter_id)
        pipe.hmget(keys.dead_letter(queue, letter_id), fields)
        score, values = pipe.execute()
    if score is None:
        return None
    return {field: value for field, value in zip(fields, values, strict=True) if value is not None}


def letter_sizes(store: Store, queue: str, letter_id: str) -> dict[str, int]:
    """Return the bytes of a letter's parcel and of the state that goes along (cd)."""
    name = store.keys.dead_letter(queue, letter_id)
    with redis_of(store).pipeline(transaction=False) as pipe:
        for field in _LARGE:
            pipe.hstrlen(name, field)
        return dict(zip(_LARGE, pipe.execute(), strict=True))


def letter_message(store: Store, queue: str, letter_id: str) -> tuple[int, bytes] | None:
    """Return when a letter was written and its parcel, or None."""
    name = store.keys.dead_letter(queue, letter_id)
    at_ms, parcel = redis_of(store).hmget(name, "at_ms", "parcel")
    return None if at_ms is None or parcel is None else (int(at_ms), parcel)


def letters_beginning(store: Store, queue: str, start: str, most: int) -> list[str]:
    """Return up to ``most`` ids of dead letters that begin with a text."""
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
    found: list[str] = []
    cursor = 0
    for _ in range(_MOST_SCANS):
        cursor, page = redis_of(store).zscan(
            store.keys.dead(queue), cursor, match=pattern, count=_SCANNED
        )
        found += [text(letter_id) for letter_id, _ in page]
        if not cursor or len(found) >= most:
            break
    return found[:most]


def letter_summaries(store: Store, found: Sequence[tuple[str, str]]) -> list[Summary]:
    """Return what each dead letter (queue, id) says, without its message; "" where it has gone."""
    return [
        Summary(*map(text, values)) for values in _fields_of_letters(store, found, list(_SUMMARY))
    ]


def letter_tracebacks(store: Store, found: Sequence[tuple[str, str]]) -> list[str]:
    """Return the traceback of each dead letter (queue, id), or ""."""
    return [text(values[0]) for values in _fields_of_letters(store, found, ["traceback"])]


def group_counts(store: Store, queue: str, most: int) -> GroupCounts:
    """Return how many letters have each fingerprint, the ``most`` frequent first."""
    keys = store.keys
    with redis_of(store).pipeline(transaction=True) as pipe:
        pipe.zrange(keys.groups(queue), 0, most - 1, desc=True, withscores=True)
        pipe.zcard(keys.groups(queue))
        pipe.zcard(keys.dead(queue))
        found, groups, letters = pipe.execute()
    return GroupCounts(dict(map(_scored, found)), groups, letters)


def group_spans(
    store: Store, found: Sequence[tuple[str, str]], oldest_ms: int, newest_ms: int
) -> list[Span | None]:
    """Return what each (queue, fingerprint) has between two moments; None for nothing."""
    spans: list[Span | None] = []
    for start in range(0, len(found), _PAGE):
        with redis_of(store).pipeline(transaction=False) as pipe:
            for queue, fingerprint in found[start : start + _PAGE]:
                name = store.keys.group(queue, fingerprint)
                pipe.zcount(name, oldest_ms, newest_ms)
                pipe.zrangebyscore(name, oldest_ms, newest_ms, 0, 1, withscores=True)
                pipe.zrevrangebyscore(name, newest_ms, oldest_ms, 0, 1, withscores=True)
            replies = pipe.execute()
        for count, first, last in zip(*[iter(replies)] * 3, strict=True):
            empty = not (count and first and last)
            spans.append(None if empty else Span(count, *_scored(first[0]), *_scored(last[0])))
    return spans


def _fields_of_letters(
    store: Store, found: Sequence[tuple[str, str]], names: list[str]
) -> Iterator[Any]:
    for start in range(0, len(found), _PAGE):
        with redis_of(store).pipeline(transaction=False) as pipe:
            for queue, letter_id in found[start : start + _PAGE]:
                pipe.hmget(store.keys.dead_letter(queue, letter_id), names)
            yield from pipe.execute()


def _scored(pair: tuple[bytes, float]) -> tuple[str, int]:
    return text(pair[0]), int(pair[1])
