"""Walk through everything in small steps: for an account of it, not for a look."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from relier.store.client import Store
from relier.store.reading.messages import REPLAY_ELEMENT, SUFFIXES, unwrap
from relier.store.reading.replies import redis_of, text

_STEP = 1000
_PLENTY_BYTES = 256 * 1024
_FAMILY = re.compile(
    r"rl:\{(?P<queue>.*)\}:(?P<family>claims|parked|replay|scheduled|dead)(?::(?P<rest>.*))?$",
    re.DOTALL,
)

QUEUED, SCHEDULED, CLAIMED, RUNNING = "queued", "scheduled", "claimed", "running"
COMMITTED, REPLAY, PARKED = "committed", "to replay", "parked"
PLACES = (QUEUED, SCHEDULED, CLAIMED, RUNNING, COMMITTED, REPLAY, PARKED)
"""Where a task can be that has not ended and is not dead."""


class Owned(NamedTuple):
    """A key of a queue that belongs to somebody: claims to a worker, parked ones to a key."""

    queue: str
    owner: str
    name: str


class Found(NamedTuple):
    """One message where it was found.

    Args:
        task_id: where the server has noted it, else "": the message says it.
    """

    place: str
    queue: str
    task_id: str
    raw: bytes


@dataclass
class Keyspace:
    """The names of relier's keys, records and letters apart: of those there are too many.

    Args:
        claims, parked: each with its owner.
        letters: how many dead letters have a body.
        whole: whether all keys were seen in the time there was.
    """

    claims: list[Owned] = field(default_factory=list)
    parked: list[Owned] = field(default_factory=list)
    letters: int = 0
    whole: bool = True


def keyspace(store: Store, deadline_s: float) -> Keyspace:
    """Look at the names of all keys.

    Args:
        deadline_s: when to stop, on the monotonic clock.
    """
    found = Keyspace()
    seen: set[str] = set()
    for names in _scan(store, "rl:{*", deadline_s, found):
        for match in filter(None, map(_FAMILY.search, names)):
            name = match.string
            if name in seen:
                continue
            owned = Owned(match["queue"], match["rest"] or "", name)
            if match["family"] == "dead" and owned.owner:
                found.letters += 1
                continue
            seen.add(name)
            if match["family"] == "claims":
                found.claims.append(owned)
            elif match["family"] == "parked":
                found.parked.append(owned)
    return found


def records_of_all(
    store: Store, deadline_s: float, found: Keyspace
) -> Iterator[tuple[str, str, str]]:
    """Yield (task id, state, queue) of every record; a task may come twice."""
    first = len(store.keys.task(""))
    for names in _scan(store, "rl:task:*", deadline_s, found):
        with redis_of(store).pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(name, "s", "q")
            replies = pipe.execute()
        for name, (state, queue) in zip(names, replies, strict=True):
            yield name[first:], text(state), text(queue)


def unfinished(store: Store, queues: Sequence[str], claims: Sequence[Owned]) -> Iterator[Found]:
    """Yield every message of a task that has neither ended nor died.

    What moves meanwhile may come twice or not at all: look again at what seems wrong.
    """
    for owned in claims:
        yield from _claimed(store, owned)
    for queue in queues:
        for suffix in SUFFIXES:
            for raw in elements(store, store.keys.list(queue) + suffix):
                yield Found(QUEUED, queue, "", raw)
        for member, _ in _zset(store, store.keys.scheduled(queue)):
            yield Found(SCHEDULED, queue, "", unwrap(member).raw)
        for element in elements(store, store.keys.replay(queue)):
            match = REPLAY_ELEMENT.match(element)
            if match:
                parcel = element[match.end() + int(match[1]) :]
                yield Found(REPLAY, queue, "", unwrap(parcel).raw)


def parked(store: Store, lists: Sequence[Owned]) -> Iterator[Found]:
    """Yield what is parked behind idempotency keys."""
    for owned in lists:
        for parcel in elements(store, owned.name):
            yield Found(PARKED, owned.queue, "", unwrap(parcel).raw)


def unowned(store: Store, lists: Sequence[Owned]) -> list[Owned]:
    """Return those lists of parked messages whose key has no owner that runs."""
    redis, keys = redis_of(store), store.keys
    lost = []
    for owned in lists:
        worker, number, queue = redis.hmget(keys.idempotency(owned.owner), "w", "c", "q")
        if worker is not None:
            claims = keys.claims(text(queue), text(worker))
            started, outcome = redis.hmget(claims, f"s:{text(number)}", f"o:{text(number)}")
            if started is not None and outcome is None:
                continue
        if redis.exists(owned.name):
            lost.append(owned)
    return lost


def elements(store: Store, name: str) -> Iterator[bytes]:
    """Yield a list from its left end, in pages that stay small when its elements are large.

    Messages are put in at the left and taken at the right, so that none is passed over.
    """
    start, page = 0, 1
    while found := redis_of(store).lrange(name, start, start + page - 1):
        yield from found
        start += len(found)
        size = sum(map(len, found))
        page = min(page * 2, _STEP) if size * 2 <= _PLENTY_BYTES else max(page // 2, 1)


def files_without_holder(store: Store, older_than_ms: int) -> list[str]:
    """Return the checkpoint files that no checkpoint refers to.

    Args:
        older_than_ms: of the server's clock; a later one may still be being written.
    """
    redis, lost = redis_of(store), []
    for name, value in _hash(store, store.keys.checkpoint_files):
        since, _, holder = value.partition(b"|")
        if not since.isdigit() or int(since) > older_than_ms:
            continue
        refers = holder and redis.type(holder) == b"hash" and redis.hget(holder, "cp")
        if not refers or not refers.endswith(b"/" + name):
            lost.append(text(name))
    return lost


def letters_without_body(store: Store, queues: Sequence[str]) -> tuple[int, list[tuple[str, str]]]:
    """Return how many dead letters are listed, and the (queue, id) of which nothing is left."""
    listed, lost = 0, []
    for queue in queues:
        for page in _pages(_zset(store, store.keys.dead(queue))):
            listed += len(page)
            with redis_of(store).pipeline(transaction=False) as pipe:
                for letter_id, _ in page:
                    pipe.exists(store.keys.dead_letter(queue, text(letter_id)))
                there = pipe.execute()
            pairs = zip(page, there, strict=True)
            lost += [(queue, text(each[0])) for each, exists in pairs if not exists]
    return listed, lost


def listed_letters(store: Store, letters: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those letters (queue, id) that are listed as dead and have no body."""
    redis, keys = redis_of(store), store.keys
    return [
        (queue, letter_id)
        for queue, letter_id in letters
        if redis.zscore(keys.dead(queue), letter_id) is not None
        and not redis.exists(keys.dead_letter(queue, letter_id))
    ]


def existing(store: Store, lists: Sequence[Owned]) -> list[Owned]:
    """Return those keys that exist."""
    return [each for each in lists if redis_of(store).exists(each.name)]


def _claimed(store: Store, owned: Owned) -> Iterator[Found]:
    fields: dict[bytes, bytes] = dict(_hash(store, owned.name))
    for number, parcel in fields.items():
        if number.isdigit():
            started = fields.get(b"s:" + number)
            place = CLAIMED if started is None else RUNNING
            if b"o:" + number in fields:
                place = COMMITTED
            task_id = started.split(b"|", 3)[3] if started else b""
            yield Found(place, owned.queue, text(task_id), unwrap(parcel).raw)


def _scan(store: Store, pattern: str, deadline_s: float, found: Keyspace) -> Iterator[list[str]]:
    prefix = re.sub(r"([*?\[\]\\])", r"\\\1", store.keys.prefix)
    cursor, started = 0, False
    while cursor or not started:
        if time.monotonic() > deadline_s:
            found.whole = False
            return
        started = True
        cursor, names = redis_of(store).scan(cursor, match=prefix + pattern, count=_STEP)
        yield [text(name) for name in names]


def _hash(store: Store, name: str) -> Iterator[tuple[bytes, bytes]]:
    def step(cursor: int) -> tuple[int, Mapping[bytes, bytes]]:
        reply: tuple[int, Mapping[bytes, bytes]] = redis_of(store).hscan(name, cursor, count=50)
        return reply

    for page in _steps(step):
        yield from page.items()


def _zset(store: Store, name: str) -> Iterator[tuple[bytes, float]]:
    def step(cursor: int) -> tuple[int, Sequence[tuple[bytes, float]]]:
        reply: tuple[int, Sequence[tuple[bytes, float]]] = redis_of(store).zscan(
            name, cursor, count=200
        )
        return reply

    seen: set[bytes] = set()
    for page in _steps(step):
        for member, score in page:
            # A set that grows or shrinks meanwhile may give a member twice.
            if member not in seen:
                seen.add(member)
                yield member, score


def _steps(step: Callable[[int], tuple[int, Any]]) -> Iterator[Any]:
    cursor, started = 0, False
    while cursor or not started:
        started = True
        cursor, page = step(cursor)
        yield page


def _pages(found: Iterator[tuple[bytes, float]]) -> Iterator[list[tuple[bytes, float]]]:
    page: list[tuple[bytes, float]] = []
    for each in found:
        page.append(each)
        if len(page) == _STEP:
            yield page
            page = []
    if page:
        yield page
