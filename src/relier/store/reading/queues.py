"""What there is to know of a queue beside its messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relier.store.client import Store
from relier.store.pausing import Pause, read
from relier.store.reading.messages import SUFFIXES
from relier.store.reading.replies import redis_of


class InHand(NamedTuple):
    """How many messages a worker holds of a queue, those that run, and those that committed."""

    worker: str
    queue: str
    claimed: int
    running: int
    committed: int


def in_hand(store: Store, pairs: Sequence[tuple[str, str]]) -> list[InHand]:
    """Count the claims of (worker, queue) pairs."""
    with redis_of(store).pipeline(transaction=False) as pipe:
        for worker, queue in pairs:
            pipe.hkeys(store.keys.claims(queue, worker))
        replies = pipe.execute()
    return [
        _in_hand(worker, queue, fields)
        for (worker, queue), fields in zip(pairs, replies, strict=True)
    ]


def _in_hand(worker: str, queue: str, fields: Sequence[bytes]) -> InHand:
    committed = {field[2:] for field in fields if field.startswith(b"o:")}
    started = {field[2:] for field in fields if field.startswith(b"s:")}
    claimed = sum(field.isdigit() for field in fields)
    return InHand(worker, queue, claimed, len(started - committed), len(committed))


def pauses(store: Store, queues: Sequence[str]) -> dict[str, Pause]:
    """Return the pauses of those queues that are paused."""
    with redis_of(store).pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.get(store.keys.paused(queue))
        notes = pipe.execute()
    return {
        queue: read(note) for queue, note in zip(queues, notes, strict=True) if note is not None
    }


def next_messages(store: Store, queues: Sequence[str]) -> dict[str, list[bytes]]:
    """Return for each queue the message that has waited longest in each of its lists."""
    with redis_of(store).pipeline(transaction=False) as pipe:
        for queue in queues:
            for suffix in SUFFIXES:
                pipe.lindex(store.keys.list(queue) + suffix, -1)
        found = iter(pipe.execute())
    return {queue: [raw for raw in (next(found) for _ in SUFFIXES) if raw] for queue in queues}


def any_waiting(store: Store, queue: str) -> bool:
    """Return whether messages wait in a queue's lists, though relier may not have seen it yet."""
    names = [store.keys.list(queue) + suffix for suffix in SUFFIXES]
    return bool(redis_of(store).exists(*names))
