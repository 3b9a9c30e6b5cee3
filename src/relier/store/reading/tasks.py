"""What is known of a task: its record, and its stored result."""

from __future__ import annotations

from collections.abc import Sequence

from relier.store.client import Store
from relier.store.reading.replies import redis_of, text

_RECORD = ("n", "q", "s", "g", "l", "at", "a", "b", "i", "w", "c", "st", "due", "cp")


def records(store: Store, task_ids: Sequence[str]) -> list[dict[str, str]]:
    """Return each task's record, without tokens and saved state; empty for one that has none."""
    with redis_of(store).pipeline(transaction=False) as pipe:
        for task_id in task_ids:
            pipe.hmget(store.keys.task(task_id), _RECORD)
        return [
            {name: text(value) for name, value in zip(_RECORD, values, strict=True) if value}
            for values in pipe.execute()
        ]


def stored_result(store: Store, task_id: str) -> bytes | None:
    """Return what Celery's Redis backend holds for a task in this database, if it does."""
    found: bytes | None = redis_of(store).get(f"{store.keys.prefix}celery-task-meta-{task_id}")
    return found
