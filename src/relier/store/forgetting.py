"""Idempotency keys and locks as a whole: find them, and let go of some."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from relier.store.client import Store
from relier.store.operations import Operation, text
from relier.store.reading.replies import redis_of
from relier.store.scripts import load

Kind = Literal["idem", "lock"]
Order = Literal["look", "orphans", "results"]

IDEM: Final = "idem"
LOCK: Final = "lock"

MOST_PER_CALL = 100

_FORGET = load("forget")
_SCANNED_AT_ONCE = 2000
"""Keys that one step of the scan looks at: less than a millisecond of the server's time."""

_GLOB = re.compile(r"([*?\[\]\\])")


def names(store: Store, kind: Kind, task: str | None = None) -> Iterator[list[str]]:
    """Yield the names of all keys of a kind, in pages; a key may come twice.

    There is no index of them: this walks the whole keyspace, step by step.

    Args:
        task: only the idempotency keys of this task.
    """
    of_task = f"{_literally(task)}:*" if task is not None else "*"
    pattern = f"{_literally(store.keys.prefix)}rl:{kind}:{of_task}"
    cursor = 0
    while True:
        cursor, found = redis_of(store).scan(cursor, match=pattern, count=_SCANNED_AT_ONCE)
        decoded = [name.decode(errors="surrogateescape") for name in found]
        for start in range(0, len(decoded), MOST_PER_CALL):
            yield decoded[start : start + MOST_PER_CALL]
        if not cursor:
            return


def forget(kind: Kind, found: Sequence[str], order: Order) -> Operation[list[str]]:
    """Let go of keys of one kind, at most ``MOST_PER_CALL``; those that somebody owns stay.

    Args:
        order: "look" changes nothing; "orphans" lets go of what nobody owns any more; "results" of
            what is done, too.

    Returns:
        For each key "owned" (or a result that calls wait for), "result", "orphan", "" (there is
        nothing to let go of), or "again": ask again, more wait for it than one call wakes.
    """
    return Operation(_FORGET, list(found), [kind, order], _verdicts)


def _literally(name: str) -> str:
    return _GLOB.sub(r"\\\1", name)


def _verdicts(reply: list[Any]) -> list[str]:
    return [text(each) for each in reply]
