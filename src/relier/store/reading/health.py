"""What a server and a fleet in trouble look like."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from relier.store.client import Store
from relier.store.fleet import connected_clients
from relier.store.lines import new_connection
from relier.store.reading.replies import redis_of, text

_STEP = 1000
_CLAIMS = re.compile(r"rl:\{(.*)\}:claims:([^:]*)$", re.DOTALL)


class Late(NamedTuple):
    """How many messages of a queue's schedule should have been queued by now, since when."""

    messages: int
    oldest_ms: int


class Unowned(NamedTuple):
    """How many messages of a queue are held under the id of a worker that has no entry."""

    worker: str
    queue: str
    messages: int


class Search(NamedTuple):
    """What was found of the keyspace, and how much of it was seen in the time there was."""

    claims: tuple[Unowned, ...]
    seen: int
    whole: bool


def key_count(store: Store) -> int:
    """Return how many keys the database holds."""
    return int(redis_of(store).dbsize())


def lists_itself(store: Store) -> bool | None:
    """Return whether the server lists a connection of ours; None when it may not be asked."""
    connection = new_connection(redis_of(store).connection_pool)
    try:
        connection.connect()
        connection.send_command("CLIENT", "ID")
        own = str(connection.read_response())
        listed = connected_clients(store, [own])
    finally:
        connection.disconnect()
    return None if listed is None else own in listed


def overdue(store: Store, queues: Sequence[str], due_before_ms: int) -> dict[str, Late]:
    """Return what of each queue's schedule was due before a moment of the server's clock."""
    with redis_of(store).pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.zcount(store.keys.scheduled(queue), "-inf", due_before_ms)
            pipe.zrange(store.keys.scheduled(queue), 0, 0, withscores=True)
        replies = pipe.execute()
    return {
        queue: Late(due, int(first[0][1]) if first else 0)
        for queue, due, first in zip(queues, replies[::2], replies[1::2], strict=True)
    }


def unowned_claims(store: Store, within_s: float) -> Search:
    """Look through the keyspace for claims of workers that have no entry.

    Args:
        within_s: when to stop, for a large keyspace takes long.
    """
    redis, deadline = redis_of(store), time.monotonic() + within_s
    prefix = re.sub(r"([*?\[\]\\])", r"\\\1", store.keys.prefix)
    cursor, seen, names = 0, 0, set[str]()
    while True:
        cursor, found = redis.scan(cursor, match=f"{prefix}rl:{{*}}:claims:*", count=_STEP)
        names.update(map(text, found))
        seen += _STEP
        if not cursor or time.monotonic() > deadline:
            break
    # Read after the claims: a worker has its entry before it has a claim.
    members = {text(name) for name in redis.smembers(store.keys.workers)}
    lost = [(match[2], match[1], name) for name in names if (match := _CLAIMS.search(name))]
    lost = sorted(each for each in lost if each[0] not in members)
    with redis.pipeline(transaction=False) as pipe:
        for _, _, name in lost:
            pipe.hkeys(name)
        held = pipe.execute()
    claims = [
        Unowned(worker, queue, sum(field.isdigit() for field in fields))
        for (worker, queue, _), fields in zip(lost, held, strict=True)
    ]
    return Search(tuple(each for each in claims if each.messages), seen, not cursor)
