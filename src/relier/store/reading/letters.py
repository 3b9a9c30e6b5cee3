"""The dead letters of a queue."""

from __future__ import annotations

from collections.abc import Sequence

from relier.store.client import Store
from relier.store.reading.replies import redis_of, text


def dead(store: Store, queue: str, limit: int) -> list[tuple[str, int]]:
    """Return (letter id, ms of death) of up to ``limit`` dead letters, newest first."""
    found = redis_of(store).zrange(store.keys.dead(queue), 0, limit - 1, desc=True, withscores=True)
    return [(letter_id.decode(errors="replace"), int(at_ms)) for letter_id, at_ms in found]


def letter(store: Store, queue: str, letter_id: str) -> dict[str, bytes] | None:
    """Return one dead letter's fields, or None."""
    with redis_of(store).pipeline(transaction=True) as pipe:
        pipe.zscore(store.keys.dead(queue), letter_id)
        pipe.hgetall(store.keys.dead_letter(queue, letter_id))
        score, fields = pipe.execute()
    if score is None:
        return None
    return {field.decode(): value for field, value in fields.items()}


def letter_summaries(
    store: Store, queue: str, letter_ids: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return (reason, name, error) of each dead letter, without its message."""
    with redis_of(store).pipeline(transaction=False) as pipe:
        for letter_id in letter_ids:
            pipe.hmget(store.keys.dead_letter(queue, letter_id), "reason", "name", "error")
        found = pipe.execute()
    return [(text(reason), text(name), text(error)) for reason, name, error in found]
