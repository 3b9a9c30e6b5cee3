"""Find dead letters: filters, and a walk through many that can stop and go on."""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice

import msgspec

from relier.errors import ConfigurationError
from relier.store import fleet, reading
from relier.store.client import Store
from relier.store.reading import Summary

MOST_LOOKED_AT = 10_000
"""Letters that one listing looks at: a fraction of a second."""

_BATCH = 500
_MOST_GROUPS = 1000
_MOST_MERGED = 200
_NOTHING = Summary("", "", "", "")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; what is empty does not matter.

    Args:
        queue: the letters of this queue.
        task: the task's name; ``*`` and ``?`` stand for any text and any character.
        reason: why it died.
        error: text in its error, in any case of letters.
        fingerprint: its error's group.
        older_ms: died at least this long ago.
        newer_ms: died at most this long ago.
    """

    queue: str = ""
    task: str = ""
    reason: str = ""
    error: str = ""
    fingerprint: str = ""
    older_ms: int | None = None
    newer_ms: int | None = None

    def window(self, now_ms: int) -> tuple[int, int]:
        """Return the oldest and the newest moment of death that is meant."""
        oldest_ms = 0 if self.newer_ms is None else max(now_ms - self.newer_ms, 0)
        return oldest_ms, now_ms - (self.older_ms or 0)

    def fits(self, summary: Summary) -> bool:
        """Return whether a letter is meant, by what it says."""
        return (
            (not self.task or fnmatchcase(summary.name, self.task))
            and (not self.reason or summary.reason == self.reason)
            and self.error.lower() in summary.error.lower()
        )


class Position(msgspec.Struct, frozen=True, order=True, array_like=True):
    """One letter's place in the order of all: by time of death, then queue, then id."""

    at_ms: int
    queue: str
    letter_id: str

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def read(cls, cursor: str) -> Position:
        """Read a position as a listing printed it.

        Raises:
            ConfigurationError: it is not one.
        """
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=cls)
        except (binascii.Error, msgspec.DecodeError, ValueError):
            raise ConfigurationError(
                f"{cursor!r} is no cursor: give --cursor what an earlier listing ended with"
            ) from None


@dataclass(frozen=True, slots=True)
class LetterRow:
    """One line of a listing; ``letter_id`` is the task's id, or raw-... when it had none."""

    letter_id: str
    queue: str
    name: str
    reason: str
    error: str
    at_ms: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Dead letters, newest first.

    Args:
        total: how many there are where it looked: of these queues, errors and ages.
        looked_at: how many of them were looked at for this listing.
        cursor: where to go on; "" at the end.
    """

    rows: tuple[LetterRow, ...]
    total: int
    looked_at: int
    cursor: str
    limit: int
    now_ms: int


class Search:
    """A walk through the letters that a filter means.

    Args:
        store: the server.
        chosen: which letters.
        now_ms: the server's clock when it began: what dies later is not met.
        newest_first: or the oldest.
        after: of a walk newest first: where an earlier one stopped.
        most: letters to look at; None: all.
        texts: have rows say why a letter died; else that is read only where the filter needs it.

    Attributes:
        looked_at: how many were looked at so far.
        position: of the last of them.
        finished: whether there is none left.
    """

    def __init__(
        self,
        store: Store,
        chosen: Filter,
        now_ms: int,
        *,
        newest_first: bool = True,
        after: Position | None = None,
        most: int | None = None,
        texts: bool = False,
    ) -> None:
        self._store = store
        self._filter = chosen
        self._newest_first = newest_first
        self._after = after
        self._most = most
        self._reads = texts or bool(chosen.task or chosen.reason or chosen.error)
        self._window = chosen.window(now_ms)
        self._places = [
            (queue, group)
            for queue in queues_of(store, chosen)
            for group in _groups_of(store, queue, chosen, self._window)
        ]
        self.looked_at = 0
        self.position = after
        self.finished = False

    @property
    def total(self) -> int:
        """Return how many letters there are where it looks, in all."""
        return reading.count_dead(self._store, self._places, self._window)

    def __iter__(self) -> Iterator[LetterRow]:
        """Yield the letters that fit."""
        walk = heapq.merge(*map(self._of_place, self._places), reverse=self._newest_first)
        while self._most is None or self.looked_at < self._most:
            batch = list(islice(walk, _BATCH))
            if not batch:
                self.finished = True
                return
            for each, summary in zip(batch, self._summaries(batch), strict=True):
                self.looked_at += 1
                self.position = each
                if not self._reads or self._filter.fits(summary):
                    yield _row(each, summary)

    def _summaries(self, batch: list[Position]) -> list[Summary]:
        if not self._reads:
            return [_NOTHING] * len(batch)
        return reading.letter_summaries(
            self._store, [(each.queue, each.letter_id) for each in batch]
        )

    def _of_place(self, place: tuple[str, str]) -> Iterator[Position]:
        queue, group = place
        after = self._after
        oldest_ms, newest_ms = self._window
        for letter_id, at_ms in reading.dead_between(
            self._store,
            queue,
            oldest_ms,
            min(newest_ms, after.at_ms) if after else newest_ms,
            fingerprint=group,
            newest_first=self._newest_first,
        ):
            here = Position(at_ms, queue, letter_id)
            if after is None or here < after:
                yield here


def _groups_of(store: Store, queue: str, chosen: Filter, window: tuple[int, int]) -> list[str]:
    """Return the fingerprints whose letters are to be looked at; "" stands for all letters.

    All letters of one fingerprint have one task and one reason, so that one of them tells whether
    the others are meant.
    """
    if chosen.fingerprint or not (chosen.task or chosen.reason):
        return [chosen.fingerprint]
    counts = reading.group_counts(store, queue, _MOST_GROUPS)
    if not counts.complete:
        return [""]
    pairs = [(queue, each) for each in counts.by_group]
    spans = reading.group_spans(store, pairs, *window)
    alive = [(group, span) for (_, group), span in zip(pairs, spans, strict=True) if span]
    summaries = reading.letter_summaries(store, [(queue, span.last_id) for _, span in alive])
    kind = replace(chosen, error="")
    found = [
        group
        for (group, _), summary in zip(alive, summaries, strict=True)
        # One that has gone meanwhile tells nothing.
        if not summary.reason or kind.fits(summary)
    ]
    return found if len(found) <= _MOST_MERGED else [""]


def queues_of(store: Store, chosen: Filter) -> list[str]:
    """Return the queues whose letters are meant."""
    return [chosen.queue] if chosen.queue else fleet.known_queues(store)


def listing(
    store: Store, chosen: Filter, *, limit: int = 50, after: Position | None = None
) -> Listing:
    """List dead letters, newest first.

    Args:
        limit: most rows.
        after: where an earlier listing stopped.
    """
    now_ms = reading.now_ms(store)
    search = Search(store, chosen, now_ms, after=after, most=MOST_LOOKED_AT, texts=True)
    rows: list[LetterRow] = []
    stopped_at = None
    for row in search:
        if len(rows) == limit:
            # One more than was asked for was looked at: there is something to go on with.
            stopped_at = Position(rows[-1].at_ms, rows[-1].queue, rows[-1].letter_id)
            search.looked_at -= 1
            break
        rows.append(row)
    else:
        stopped_at = None if search.finished else search.position
    return Listing(
        rows=tuple(rows),
        total=search.total,
        looked_at=search.looked_at,
        cursor="" if stopped_at is None else str(stopped_at),
        limit=limit,
        now_ms=now_ms,
    )


def _row(where: Position, summary: Summary) -> LetterRow:
    return LetterRow(
        where.letter_id,
        where.queue,
        summary.name,
        summary.reason,
        summary.error,
        where.at_ms,
        summary.fingerprint,
    )
