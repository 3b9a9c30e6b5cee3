"""Remove dead letters that are too old, or too many: only where somebody asked for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import islice

from relier.config import Settings
from relier.protocol.identity import mint_token
from relier.store import fleet, letters, reading
from relier.store.client import Store
from relier.store.reading import Extent

logger = logging.getLogger(__name__)

EVERY_MS = 1000
_MOST_BATCHES = 20
_TOO_OLD = "older than RELIER_DLQ_MAX_AGE"
_TOO_MANY = "more than RELIER_DLQ_MAX_COUNT in the queue"


@dataclass(frozen=True, slots=True)
class Retention:
    """How long, and how many, dead letters are kept.

    Args:
        max_age_ms: a letter that is older is removed; None: none is.
        max_count: a queue keeps so many, the newest; 0: all.
    """

    max_age_ms: int | None
    max_count: int

    @classmethod
    def of(cls, settings: Settings) -> Retention:
        """Return what the settings ask for."""
        age_s = settings.dlq_max_age_s
        return cls(None if age_s is None else int(age_s * 1000), settings.dlq_max_count)

    @property
    def asked_for(self) -> bool:
        """Return whether any letter is ever removed."""
        return self.max_age_ms is not None or self.max_count > 0


def retain(store: Store, retention: Retention) -> int:
    """Remove some of the letters that are not to be kept any more; return how many.

    Each leaves an event that says why. The files of their checkpoints are nobody's from then on,
    and the sweeper removes them. One process of the fleet does this in each interval.

    Raises:
        RedisConnectionError: the server is away.
    """
    with reading.answered(store.address):
        if not letters.take_turn(store, EVERY_MS):
            return 0
        queues, now_ms = fleet.known_queues(store), reading.now_ms(store)
        extents = reading.dead_extents(store, queues)
        batches = (
            batch
            for queue, extent in zip(queues, extents, strict=True)
            for batch in _of_queue(store, queue, retention, extent, now_ms)
        )
        return sum(islice(batches, _MOST_BATCHES))


def _of_queue(
    store: Store, queue: str, retention: Retention, extent: Extent, now_ms: int
) -> Iterator[int]:
    """Remove a queue's letters batch by batch; yield how many each removed."""
    stuck: set[tuple[str, int]] = set()
    while (doomed := _doomed(store, queue, retention, extent, now_ms, stuck)) is not None:
        found, why, keep = doomed
        if not found:
            return
        operation = letters.purge(store.keys, queue, found, why, mint_token(), keep=keep)
        removed = store.run(operation).letters
        if removed:
            logger.warning("removed %d dead letters of queue %s: %s", removed, queue, why)
        else:
            # Keys of another type in their place: they stay, and those behind them go.
            stuck.update(found)
        yield removed
        [extent] = reading.dead_extents(store, [queue])


def _doomed(
    store: Store,
    queue: str,
    retention: Retention,
    extent: Extent,
    now_ms: int,
    stuck: Set[tuple[str, int]],
) -> tuple[list[tuple[str, int]], str, int] | None:
    """Return the next letters to remove, why, and how many the queue is to keep at least.

    Args:
        stuck: letters that cannot be removed.
    """
    age_ms = retention.max_age_ms
    if age_ms is not None and extent.letters and extent.oldest_ms < now_ms - age_ms:
        old = _oldest(store, queue, now_ms - age_ms - 1, extent.letters, stuck)
        if old:
            return old, _TOO_OLD, 0
    excess = extent.letters - retention.max_count if retention.max_count else 0
    if excess > 0:
        return _oldest(store, queue, now_ms, excess, stuck), _TOO_MANY, retention.max_count
    return None


def _oldest(
    store: Store, queue: str, newest_ms: int, among: int, stuck: Set[tuple[str, int]]
) -> list[tuple[str, int]]:
    """Return some of the first so many letters of a queue, without those that are stuck."""
    found = reading.dead_between(store, queue, 0, newest_ms, newest_first=False)
    removable = (each for each in islice(found, among) if each not in stuck)
    return list(islice(removable, letters.MOST_PURGED))
