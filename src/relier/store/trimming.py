"""Keep the event streams as short, and as young, as was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from redis import exceptions

from relier.store.client import Store, judge

MOST_PER_COMMAND = 10_000
"""Events that one command removes: less than a millisecond of the server."""

_QUEUES_AT_ONCE = 50
_MOST_ROUNDS = 20


def take_turn(store: Store, every_ms: int) -> bool:
    """Return whether this process may trim now; one may in each interval.

    Raises:
        RedisConnectionError: the server is away.
    """
    try:
        return bool(store.redis.set(store.keys.events_trim, "1", nx=True, px=every_ms))
    except exceptions.OutOfMemoryError:
        # To trim is what makes room.
        return True
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise


def trim(store: Store, queues: Iterable[str], *, max_length: int, oldest_ms: int) -> int:
    """Remove what is too much or too old from the streams of some queues; return how many events.

    A stream is a chain of blocks, and whole blocks are removed: up to a hundred events more stay.
    A bounded number per command and per call: what is left goes the next time.

    Args:
        max_length: events to keep, of each queue.
        oldest_ms: on the server's clock; 0 for any age.

    Raises:
        RedisConnectionError: the server is away.
    """
    removed, waiting = 0, iter(queues)
    while due := list(islice(waiting, _QUEUES_AT_ONCE)):
        for _ in range(_MOST_ROUNDS):
            counts = _round(store, due, max_length, oldest_ms)
            removed += sum(counts.values())
            due = [queue for queue, count in counts.items() if count >= MOST_PER_COMMAND]
            if not due:
                break
    return removed


def _round(store: Store, queues: list[str], max_length: int, oldest_ms: int) -> dict[str, int]:
    redis: Any = store.redis
    try:
        with redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                name = store.keys.events(queue)
                limit = ("LIMIT", MOST_PER_COMMAND)
                pipe.execute_command("XTRIM", name, "MAXLEN", "~", max_length, *limit)
                pipe.execute_command("XTRIM", name, "MINID", "~", oldest_ms, *limit)
            replies = pipe.execute(raise_on_error=False)
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise
    # A key of another type in a stream's place is somebody else's to mend, and keeps no other.
    done = [reply if isinstance(reply, int) else 0 for reply in replies]
    pairs = zip(done[::2], done[1::2], strict=True)
    return {queue: max(pair) for queue, pair in zip(queues, pairs, strict=True)}
