"""What waits in a queue: its lists, its schedule, its replays; and how much it holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from relier.store.client import Store
from relier.store.reading.replies import PAGE, redis_of

SUFFIXES = ("", *(f"\x06\x16{step}" for step in range(1, 10)))
"""Of the lists of every priority that kombu's range (0 to 9) allows, highest priority first."""

REPLAY_ELEMENT = re.compile(rb"\d+\|-?\d+\|[^|]*\|(\d+)\|")
"""The head of an element of a replay list, up to its outcome, whose length it tells."""

_DUE_SOONEST = 2000


_PAGE_BYTES = 1_000_000


class Depth(NamedTuple):
    """How much a queue holds, by place."""

    waiting: int
    scheduled: int
    replay: int
    dead: int
    paused: bool


class Waiting(NamedTuple):
    """One message in a list or in the schedule; ``due_ms`` is 0 in a list."""

    suffix: str
    raw: bytes
    due_ms: int = 0


def depths(store: Store, queues: Sequence[str]) -> dict[str, Depth]:
    """Return how much each queue holds."""
    keys = store.keys
    with redis_of(store).pipeline(transaction=False) as pipe:
        for queue in queues:
            for suffix in SUFFIXES:
                pipe.llen(keys.list(queue) + suffix)
            pipe.zcard(keys.scheduled(queue))
            pipe.llen(keys.replay(queue))
            pipe.zcard(keys.dead(queue))
            pipe.exists(keys.paused(queue))
        replies = pipe.execute()
    found, width = {}, len(SUFFIXES) + 4
    for i, queue in enumerate(queues):
        *lists, scheduled, replay, dead, paused = replies[i * width : (i + 1) * width]
        found[queue] = Depth(sum(lists), scheduled, replay, dead, bool(paused))
    return found


def waiting(store: Store, queue: str, limit: int) -> Iterator[Waiting]:
    """Yield up to ``limit`` waiting messages in the order in which they are claimed."""
    for suffix in SUFFIXES:
        for raw in messages_from(store, queue, suffix, 0, limit):
            limit -= 1
            yield Waiting(suffix, raw)


def message_at(store: Store, queue: str, suffix: str, ahead: int) -> bytes | None:
    """Return the message of a list that has so many ahead of it, or None."""
    found: bytes | None = redis_of(store).lindex(store.keys.list(queue) + suffix, -ahead - 1)
    return found


def messages_from(store: Store, queue: str, suffix: str, ahead: int, count: int) -> Iterator[bytes]:
    """Yield messages of a list in the order in which they are claimed, from one on."""
    name, seen, page = store.keys.list(queue) + suffix, ahead, 1
    while count > 0:
        page = min(page, count)
        found = redis_of(store).lrange(name, -seen - page, -seen - 1)
        yield from reversed(found)
        seen, count = seen + len(found), count - len(found)
        if len(found) < page:
            return
        # Ten million bytes each or a hundred: one command never asks for much more than a page.
        page = max(min(PAGE, _PAGE_BYTES * page // (sum(map(len, found)) + 1)), 1)


def scheduled(store: Store, queue: str, limit: int) -> Iterator[Waiting]:
    """Yield up to ``limit`` scheduled messages, the next due first."""
    for start in range(0, limit, PAGE):
        end = min(start + PAGE, limit) - 1
        found = redis_of(store).zrange(store.keys.scheduled(queue), start, end, withscores=True)
        for parcel, due_ms in found:
            yield unwrap(parcel)._replace(due_ms=int(due_ms))
        if len(found) < end - start + 1:
            return


def oldest(store: Store, queue: str, suffix: str | None, count: int) -> list[bytes]:
    """Return what is next in one of a queue's lists, or, with None, the parcels due first."""
    if suffix is None:
        due: list[bytes] = redis_of(store).zrange(store.keys.scheduled(queue), 0, count - 1)
        return due
    found: list[bytes] = redis_of(store).lrange(store.keys.list(queue) + suffix, -count, -1)
    return found[::-1]


def size(store: Store, queue: str, suffix: str | None) -> int:
    """Return how many messages one of a queue's lists, or, with None, its schedule holds."""
    if suffix is None:
        return int(redis_of(store).zcard(store.keys.scheduled(queue)))
    return int(redis_of(store).llen(store.keys.list(queue) + suffix))


def replays(store: Store, queue: str, limit: int) -> Iterator[Waiting]:
    """Yield up to ``limit`` committed tasks whose consequences wait to be sent again."""
    for element in reversed(redis_of(store).lrange(store.keys.replay(queue), -limit, -1)):
        # As lua/lib/replay.lua writes it; what another version wrote is left for its own workers.
        found = REPLAY_ELEMENT.match(element)
        if found:
            yield unwrap(element[found.end() + int(found[1]) :])


def unwrap(parcel: bytes) -> Waiting:
    """Split a parcel into the suffix of its list and the raw message."""
    suffix, _, raw = parcel.partition(b"|")
    return Waiting(suffix.decode(), raw)


def scheduled_parcel(
    store: Store, queue: str, task_id: str, due_ms: int, id_of: Callable[[bytes], str]
) -> bytes | None:
    """Return a task's element in the schedule, or None.

    Args:
        due_ms: where to look first; then among those that are due soonest.
        id_of: reads the id in a raw message: another task's may name this one among its arguments,
            or as its parent.
    """
    redis, name, needle = redis_of(store), store.keys.scheduled(queue), task_id.encode()
    parcels: list[bytes] = redis.zrangebyscore(name, due_ms, due_ms, 0, PAGE) if due_ms else []
    for start in range(0, _DUE_SOONEST, PAGE):
        for each in parcels:
            # Most are another's: reading one costs far more than this look.
            if needle in each and id_of(unwrap(each).raw) == task_id:
                return each
        parcels = redis.zrange(name, start, start + PAGE - 1)
    return None
