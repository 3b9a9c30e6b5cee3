"""The entries of the workers, and the names of those that are gone."""

from __future__ import annotations

from collections.abc import Iterable

from relier.store.client import Store
from relier.store.reading.replies import redis_of, text, texts

_PAST_PAGE, _MOST_PAST_PAGES = 1000, 10


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


def worker_names(store: Store, worker_ids: Iterable[str]) -> dict[str, str]:
    """Return the names of workers, of those that are gone as well as far as they are remembered."""
    asked = sorted(set(worker_ids))
    with redis_of(store).pipeline(transaction=False) as pipe:
        for worker_id in asked:
            pipe.hget(store.keys.worker(worker_id), "name")
        replies = pipe.execute()
    found = {each: text(name) for each, name in zip(asked, replies, strict=True) if name}
    missing, before = set(asked) - found.keys(), "+"
    for _ in range(_MOST_PAST_PAGES if missing else 0):
        page = redis_of(store).xrevrange(store.keys.past_workers, before, "-", count=_PAST_PAGE)
        for _, fields in page:
            worker_id, name = text(fields.get(b"w")), text(fields.get(b"n"))
            if worker_id in missing and name:
                found[worker_id] = name
                missing.discard(worker_id)
        if not missing or len(page) < _PAST_PAGE:
            break
        before = f"({page[-1][0].decode()}"
    return found


def past_workers(store: Store, count: int = 50) -> list[tuple[int, dict[str, str]]]:
    """Return when the latest workers went (or gave back tasks as they died), newest first."""
    found = redis_of(store).xrevrange(store.keys.past_workers, count=count)
    return [(int(stream_id.partition(b"-")[0]), texts(fields)) for stream_id, fields in found]
