"""Idempotency keys and locks: how many there are, and letting go of those that are not needed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from relier.store import forgetting
from relier.store.client import Store
from relier.store.forgetting import IDEM, LOCK, Kind, Order


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was found, and what was let go of.

    Args:
        dry_run: whether nothing was touched.
        results_too: whether results were to be let go of.
        owned: keys and locks of what runs now; they stayed.
        orphans: those of what does not run any more.
        results: of tasks and blocks that are done.
    """

    dry_run: bool
    results_too: bool
    owned: int
    orphans: int
    results: int


def purge(
    store: Store,
    *,
    results: bool = False,
    task: str | None = None,
    key: str | None = None,
    dry_run: bool = False,
) -> Forgotten:
    """Let go of idempotency keys and locks whose owner is gone, and of results if asked.

    Args:
        results: of results, too: what they stand for may then happen once more.
        task: only the idempotency keys of the task with this name.
        key: only the lock of this key, as ``idempotency_lock`` was given it.
        dry_run: say what would be let go of, and touch nothing.
    """
    order: Order = "look" if dry_run else ("results" if results else "orphans")
    counts: Counter[str] = Counter()
    if key is not None:
        name = store.keys.lock(hashlib.sha256(key.encode()).hexdigest())
        counts.update(_forget(store, LOCK, [name], order))
    else:
        kinds: tuple[Kind, ...] = (IDEM,) if task is not None else (IDEM, LOCK)
        for kind in kinds:
            for page in forgetting.names(store, kind, task):
                counts.update(_forget(store, kind, page, order))
    return Forgotten(dry_run, results, counts["owned"], counts["orphan"], counts["result"])


def _forget(store: Store, kind: Kind, page: list[str], order: Order) -> Iterator[str]:
    """Yield what each key of a page is."""
    while page:
        found = store.run(forgetting.forget(kind, page, order))
        yield from (each for each in found if each != "again")
        page = [name for name, said in zip(page, found, strict=True) if said == "again"]
