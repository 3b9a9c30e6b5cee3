"""The entries of the workers."""

from __future__ import annotations

from relier.store.client import Store
from relier.store.reading.replies import redis_of, text, texts


def worker_entries(store: Store) -> dict[str, dict[str, str]]:
    """Return each worker's entry by its id; empty for one that has just gone."""
    names = sorted(text(name) for name in redis_of(store).smembers(store.keys.workers))
    with redis_of(store).pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hgetall(store.keys.worker(name))
        return dict(zip(names, map(texts, pipe.execute()), strict=True))


def worker_entry(store: Store, worker_id: str) -> dict[str, str]:
    """Return one worker's entry; empty when there is none."""
    return texts(redis_of(store).hgetall(store.keys.worker(worker_id)))
