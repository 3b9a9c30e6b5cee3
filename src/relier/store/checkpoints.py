"""The operations behind checkpoints, and what is known of their files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import exceptions

from relier.protocol.checkpoint import INLINE, Place
from relier.protocol.identity import Claim
from relier.store.client import Store, judge
from relier.store.keys import Keys
from relier.store.operations import Operation, text
from relier.store.scripts import load
from relier.store.ttl import LIVE_RECORD_TTL_MS

_CHECKPOINT, _RESERVE, _FREE = load("checkpoint"), load("reserve_file"), load("free_files")

KEPT, STALE, GIVEN_UP = 1, 0, -1
"""Answers of :func:`checkpoint`. GIVEN_UP: its file was reserved too long ago."""

MOST_FILES = 250
"""Names that one :func:`free_files` may look at."""

_HOME = "home"


def checkpoint(
    keys: Keys, claim: Claim, task_id: str, number: int, size_bytes: int, where: Place | bytes
) -> Operation[int]:
    """Keep a running task's state for an attempt that may follow.

    Args:
        number: of this checkpoint under its claim, from 1; a later one is never replaced.
        size_bytes: of the encoded state.
        where: its file, which was reserved and is written; or the state itself.

    Returns:
        ``KEPT``, ``STALE`` or ``GIVEN_UP``.
    """
    inline = isinstance(where, bytes)
    return Operation(
        _CHECKPOINT,
        _keys_of(keys, claim, task_id),
        [
            claim.number,
            number,
            LIVE_RECORD_TTL_MS,
            size_bytes,
            INLINE if inline else str(where),
            where if isinstance(where, bytes) else "",
        ],
        int,
    )


def reserve_file(keys: Keys, claim: Claim, task_id: str, name: str, home: str) -> Operation[str]:
    """Announce a file before it is written.

    Args:
        home: what to call the folder of this server's files if it has none yet.

    Returns:
        The folder's name; "" when the claim is stale.
    """
    return Operation(_RESERVE, _keys_of(keys, claim, task_id), [claim.number, name, home], text)


def free_files(keys: Keys, names: Sequence[str], grace_ms: int = 0) -> Operation[list[str]]:
    """Return which of these files nobody needs; from now on nobody can come to need them.

    Args:
        grace_ms: how long a file may be reserved before a checkpoint refers to it.
    """
    return Operation(_FREE, [keys.checkpoint_files], [grace_ms, *names], _texts)


def home(store: Store) -> str:
    """Return the name of the folder of this server's files; "" while it has none."""
    with _judged(store) as redis:
        return text(redis.hget(store.keys.checkpoint_files, _HOME) or "")


def reserved_files(store: Store) -> Iterator[str]:
    """Yield the names of the files that are reserved or referred to."""
    cursor = -1
    while cursor != 0:
        with _judged(store) as redis:
            cursor, found = redis.hscan(
                store.keys.checkpoint_files, max(cursor, 0), count=MOST_FILES
            )
        yield from (name for name in map(text, found) if name != _HOME)


def take_sweep(store: Store, every_ms: int) -> bool:
    """Return whether this process may sweep now; one may in each interval."""
    with _judged(store) as redis:
        return bool(redis.set(store.keys.checkpoint_sweep, "1", nx=True, px=every_ms))


@contextmanager
def _judged(store: Store) -> Iterator[Any]:
    try:
        yield store.redis
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise


def _keys_of(keys: Keys, claim: Claim, task_id: str) -> list[str]:
    return [
        keys.worker(claim.worker),
        keys.claims(claim.queue, claim.worker),
        keys.task(task_id),
        keys.checkpoint_files,
    ]


def _texts(reply: Any) -> list[str]:
    return [text(name) for name in reply]
