"""What ended, and how, in each minute and in each half hour of the server's clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from relier.protocol import tally
from relier.protocol.tally import HALF_HOUR_MS, HALF_HOURS_KEPT, MINUTE_MS, MINUTES_KEPT, Cell
from relier.store.client import Store
from relier.store.reading.replies import redis_of, text

Counts = Counter[Cell]
"""How many tasks ended so."""

_HASHES_AT_ONCE = 50
"""Each may have 1,000 fields; what is asked in one go is answered in one go."""

_Fields = dict[bytes, bytes]
K = TypeVar("K")


def ended_by_minute(
    store: Store, queues: Sequence[str], now_ms: int, past: int
) -> dict[int, Counts]:
    """Return what ended in this minute and in past ones, over some queues.

    Args:
        now_ms: the server's clock.
        past: how many whole minutes to look back, at most ``MINUTES_KEPT``.

    Returns:
        The counts by when the minute began, ms; one in which nothing ended is left out.
    """
    latest = now_ms // MINUTE_MS
    numbers = range(latest - min(past, MINUTES_KEPT), latest + 1)
    wanted = [(number, store.keys.minute(queue, number)) for queue in queues for number in numbers]
    found: dict[int, Counts] = {}
    for (number, _), fields in _hashes(store, wanted):
        _add(found, number * MINUTE_MS, fields)
    return found


def ended_by_half_hour(
    store: Store, queues: Sequence[str], now_ms: int, past: int
) -> dict[int, Counts]:
    """Return the same by half hours, of which ``HALF_HOURS_KEPT`` past ones are kept."""
    latest = now_ms // HALF_HOUR_MS
    numbers = range(latest - min(past, HALF_HOURS_KEPT), latest + 1)
    # Each queue's latest minute is not in its half hour until the next begins. It is read first: if
    # that happens meanwhile, the half hour says that it has it.
    alone = _not_added_yet(store, queues)
    wanted = [
        ((queue, number), store.keys.half_hour(queue, number))
        for queue in queues
        for number in numbers
    ]
    found: dict[int, Counts] = {}
    for ((queue, number), _), fields in _hashes(store, wanted):
        _add(found, number * HALF_HOUR_MS, fields)
        minute, rest = alone.get(queue, (-1, {}))
        up_to = fields.get(b"+", b"")
        has_it = up_to.isdigit() and minute <= int(up_to)
        if minute * MINUTE_MS // HALF_HOUR_MS == number and not has_it:
            _add(found, number * HALF_HOUR_MS, rest)
    return found


def _not_added_yet(store: Store, queues: Sequence[str]) -> dict[str, tuple[int, _Fields]]:
    with redis_of(store).pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.get(store.keys.open_minute(queue))
        numbers = dict(zip(queues, pipe.execute(), strict=True))
    wanted = [
        ((queue, int(number)), store.keys.minute(queue, int(number)))
        for queue, number in numbers.items()
        if number and number.isdigit()
    ]
    return {queue: (number, fields) for ((queue, number), _), fields in _hashes(store, wanted)}


def _hashes(
    store: Store, wanted: Sequence[tuple[K, str]]
) -> Iterator[tuple[tuple[K, str], _Fields]]:
    for start in range(0, len(wanted), _HASHES_AT_ONCE):
        page = wanted[start : start + _HASHES_AT_ONCE]
        with redis_of(store).pipeline(transaction=False) as pipe:
            for _, name in page:
                pipe.hgetall(name)
            yield from zip(page, pipe.execute(), strict=True)


def _add(found: dict[int, Counts], start_ms: int, fields: _Fields) -> None:
    for field, count in fields.items():
        cell = _cell(field)
        if cell and count.isdigit():
            found.setdefault(start_ms, Counter())[cell] += int(count)


@lru_cache(maxsize=10_000)
def _cell(field: bytes) -> Cell | None:
    return tally.cell(text(field))
