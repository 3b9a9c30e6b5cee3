"""Read what is there, for people. Reading changes nothing, is bounded, and needs no script.

Nothing here scans the keyspace: the registries of queues and workers lead to every key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis import exceptions

from relier.errors import RedisConnectionError, RelierError
from relier.store.address import Address
from relier.store.client import Store, judge

SUFFIXES = ("", *(f"\x06\x16{step}" for step in range(1, 10)))
"""Of the lists of every priority that kombu's range (0 to 9) allows, highest priority first."""

_LARGEST_PARCEL_BYTES = 1_000_000
_PAGE = 200
_RECORD = ("n", "q", "s", "g", "l", "at", "a", "b", "i", "w", "st", "due", "cp")
_REPLAY = re.compile(rb"\d+\|-?\d+\|[^|]*\|(\d+)\|")


class Depth(NamedTuple):
    """How much a queue holds, by place."""

    waiting: int
    scheduled: int
    replay: int
    dead: int
    paused: bool


class HeldClaim(NamedTuple):
    """One claim as its worker's hash shows it.

    Args:
        started: whether a process has begun it.
        committed: whether its outcome is saved.
        task_id: once started, else "".
        fence, starts, returns: once started, else 0.
    """

    worker: str
    queue: str
    number: str
    started: bool
    committed: bool
    task_id: str
    fence: int
    starts: int
    returns: int


class Waiting(NamedTuple):
    """One message in a list or in the schedule; ``due_ms`` is 0 in a list."""

    suffix: str
    raw: bytes
    due_ms: int = 0


class StreamEvent(NamedTuple):
    """One entry of a queue's event stream."""

    stream_id: str
    fields: Mapping[str, str]

    @property
    def at_ms(self) -> int:
        """Return when it was written, on the server's clock."""
        return int(self.stream_id.partition("-")[0])


@contextmanager
def answered(address: Address) -> Iterator[None]:
    """Raise our errors in place of redis-py's.

    Raises:
        RedisConnectionError: the server is away, silent, or refuses our credentials.
        RelierError: it refuses a command.
    """
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
        judge(error, address, out_of_time=True)
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise RedisConnectionError(
            f"Redis at {address.public} cannot be reached ({error}). "
            "Check that it runs, or name another server with --url or RELIER_REDIS_URL."
        ) from error
    except exceptions.RedisError as error:
        raise RelierError(
            f"Redis at {address.public} refused a command ({error}). "
            "Check the permissions of the user in the URL, and that this database is relier's."
        ) from error


def now_ms(store: Store) -> int:
    """Return the server's clock."""
    seconds, micros = _redis(store).time()
    return int(seconds) * 1000 + int(micros) // 1000


def worker_entries(store: Store) -> dict[str, dict[str, str]]:
    """Return each worker's entry by its id; empty for one that has just gone."""
    names = sorted(_text(name) for name in _redis(store).smembers(store.keys.workers))
    with _redis(store).pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hgetall(store.keys.worker(name))
        return dict(zip(names, map(_texts, pipe.execute()), strict=True))


def depths(store: Store, queues: Sequence[str]) -> dict[str, Depth]:
    """Return how much each queue holds."""
    keys = store.keys
    with _redis(store).pipeline(transaction=False) as pipe:
        for queue in queues:
            for suffix in SUFFIXES:
                pipe.llen(keys.list(queue) + suffix)
            pipe.zcard(keys.scheduled(queue))
            pipe.llen(keys.replay(queue))
            pipe.zcard(keys.dead(queue))
            pipe.exists(keys.paused(queue))
        replies = pipe.execute()
    found, width = {}, len(SUFFIXES) + 4
    for i, queue in enumerate(queues):
        *lists, scheduled, replay, dead, paused = replies[i * width : (i + 1) * width]
        found[queue] = Depth(sum(lists), scheduled, replay, dead, bool(paused))
    return found


def held(store: Store, pairs: Sequence[tuple[str, str]]) -> list[HeldClaim]:
    """Return the claims of (worker, queue) pairs, oldest first."""
    names = [store.keys.claims(queue, worker) for worker, queue in pairs]
    with _redis(store).pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hkeys(name)
        fields = [{field.decode() for field in reply} for reply in pipe.execute()]
    numbers = [sorted((f for f in each if f.isdigit()), key=int) for each in fields]
    with _redis(store).pipeline(transaction=False) as pipe:
        for name, own in zip(names, numbers, strict=True):
            for number in own:
                pipe.hget(name, f"s:{number}")
        started = iter(pipe.execute())
    return [
        _held(worker, queue, number, next(started), f"o:{number}" in own_fields)
        for (worker, queue), own, own_fields in zip(pairs, numbers, fields, strict=True)
        for number in own
    ]


def parcels(store: Store, claims: Sequence[HeldClaim]) -> list[Waiting | None]:
    """Return the message of each claim; None for one that has gone or is too large to show."""
    keys = store.keys
    where = [(keys.claims(each.queue, each.worker), each.number) for each in claims]
    with _redis(store).pipeline(transaction=False) as pipe:
        for name, number in where:
            pipe.hstrlen(name, number)
        sizes = pipe.execute()
    with _redis(store).pipeline(transaction=False) as pipe:
        for (name, number), size in zip(where, sizes, strict=True):
            pipe.hget(name, number if size <= _LARGEST_PARCEL_BYTES else "")
        return [None if parcel is None else unwrap(parcel) for parcel in pipe.execute()]


def waiting(store: Store, queue: str, limit: int) -> Iterator[Waiting]:
    """Yield up to ``limit`` waiting messages in the order in which they are claimed."""
    for suffix in SUFFIXES:
        name, seen = store.keys.list(queue) + suffix, 0
        while limit > 0:
            page = min(_PAGE, limit)
            found = _redis(store).lrange(name, -seen - page, -seen - 1)
            for raw in reversed(found):
                yield Waiting(suffix, raw)
            seen, limit = seen + len(found), limit - len(found)
            if len(found) < page:
                break


def scheduled(store: Store, queue: str, limit: int) -> Iterator[Waiting]:
    """Yield up to ``limit`` scheduled messages, the next due first."""
    for start in range(0, limit, _PAGE):
        end = min(start + _PAGE, limit) - 1
        found = _redis(store).zrange(store.keys.scheduled(queue), start, end, withscores=True)
        for parcel, due_ms in found:
            yield unwrap(parcel)._replace(due_ms=int(due_ms))
        if len(found) < end - start + 1:
            return


def replays(store: Store, queue: str, limit: int) -> Iterator[Waiting]:
    """Yield up to ``limit`` committed tasks whose consequences wait to be sent again."""
    for element in reversed(_redis(store).lrange(store.keys.replay(queue), -limit, -1)):
        # As lua/lib/replay.lua writes it; what another version wrote is left for its own workers.
        found = _REPLAY.match(element)
        if found:
            yield unwrap(element[found.end() + int(found[1]) :])


def records(store: Store, task_ids: Sequence[str]) -> list[dict[str, str]]:
    """Return each task's record, without tokens and saved state; empty for one that has none."""
    with _redis(store).pipeline(transaction=False) as pipe:
        for task_id in task_ids:
            pipe.hmget(store.keys.task(task_id), _RECORD)
        return [
            {name: _text(value) for name, value in zip(_RECORD, values, strict=True) if value}
            for values in pipe.execute()
        ]


def dead(store: Store, queue: str, limit: int) -> list[tuple[str, int]]:
    """Return (letter id, ms of death) of up to ``limit`` dead letters, newest first."""
    found = _redis(store).zrange(store.keys.dead(queue), 0, limit - 1, desc=True, withscores=True)
    return [(letter_id.decode(errors="replace"), int(at_ms)) for letter_id, at_ms in found]


def letter(store: Store, queue: str, letter_id: str) -> dict[str, bytes] | None:
    """Return one dead letter's fields, or None."""
    with _redis(store).pipeline(transaction=True) as pipe:
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
    with _redis(store).pipeline(transaction=False) as pipe:
        for letter_id in letter_ids:
            pipe.hmget(store.keys.dead_letter(queue, letter_id), "reason", "name", "error")
        found = pipe.execute()
    return [(_text(reason), _text(name), _text(error)) for reason, name, error in found]


def events_before(
    store: Store, queue: str, *, before: str = "+", oldest_ms: int = 0, count: int = 1000
) -> list[StreamEvent]:
    """Return up to ``count`` events, newest first.

    Args:
        before: an exclusive stream id, or "+" for the newest.
        oldest_ms: where to stop, on the server's clock.
    """
    newest = before if before == "+" else f"({before}"
    return _events(
        _redis(store).xrevrange(store.keys.events(queue), newest, str(oldest_ms), count=count)
    )


def events_after(store: Store, queue: str, after: str, count: int = 1000) -> list[StreamEvent]:
    """Return up to ``count`` events that came after a stream id ("0": from the start)."""
    return _events(_redis(store).xrange(store.keys.events(queue), f"({after}", "+", count=count))


def stored_result(store: Store, task_id: str) -> bytes | None:
    """Return what Celery's Redis backend holds for a task in this database, if it does."""
    found: bytes | None = _redis(store).get(f"{store.keys.prefix}celery-task-meta-{task_id}")
    return found


def info(store: Store) -> dict[str, Any]:
    """Return what INFO tells of the server."""
    found: dict[str, Any] = _redis(store).info()
    return found


def load_script(store: Store, source: str) -> str:
    """Load a script into the server's cache; return its digest.

    Raises:
        RelierError: the server does not compile it, or may not be asked to.
    """
    try:
        return str(_text(_redis(store).script_load(source)))
    except exceptions.ResponseError as error:
        raise RelierError(str(error)) from error


def remove_prefixed(store: Store) -> int:
    """Delete every key under this store's prefix; for a prefix that was made for one run.

    Raises:
        ValueError: there is no prefix, so it would be every key of the database.
    """
    if not store.keys.prefix:
        raise ValueError("no prefix")
    names = list(_redis(store).scan_iter(match=f"{store.keys.prefix}*", count=1000))
    for start in range(0, len(names), _PAGE):
        _redis(store).unlink(*names[start : start + _PAGE])
    return len(names)


def _redis(store: Store) -> Any:
    # redis-py types one reply for every protocol and decoding; ours are always bytes.
    return store.redis


def unwrap(parcel: bytes) -> Waiting:
    """Split a parcel into the suffix of its list and the raw message."""
    suffix, _, raw = parcel.partition(b"|")
    return Waiting(suffix.decode(), raw)


def _held(
    worker: str, queue: str, number: str, started: bytes | None, committed: bool
) -> HeldClaim:
    if started is None:
        return HeldClaim(worker, queue, number, False, committed, "", 0, 0, 0)
    fence, starts, returns, task_id = started.decode().split("|", 3)
    return HeldClaim(
        worker, queue, number, True, committed, task_id, int(fence), int(starts), int(returns)
    )


def _events(found: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[StreamEvent]:
    return [StreamEvent(stream_id.decode(), _texts(fields)) for stream_id, fields in found]


def _texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): _text(value) for name, value in fields.items()}


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
