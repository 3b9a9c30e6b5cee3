"""The event stream of a queue, and the history that a task in trouble carries along."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from relier.store.client import Store
from relier.store.reading.replies import redis_of, text, texts

_PAGE = 1000
_LATER_LETTER = b"~"


class StreamEvent(NamedTuple):
    """One entry of a queue's event stream."""

    stream_id: str
    fields: Mapping[str, str]

    @property
    def at_ms(self) -> int:
        """Return when it was written, on the server's clock."""
        return int(self.stream_id.partition("-")[0])


class About(NamedTuple):
    """What a stream says about one task, newest first.

    Args:
        own: its own events.
        batches: all that was claimed meanwhile, by anybody: whose claim a task's was is told by
            its other events.
        looked_at: how many events were read.
    """

    own: list[StreamEvent]
    batches: list[StreamEvent]
    looked_at: int


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
        redis_of(store).xrevrange(store.keys.events(queue), newest, str(oldest_ms), count=count)
    )


def events_after(store: Store, queue: str, after: str, count: int = 1000) -> list[StreamEvent]:
    """Return up to ``count`` events that came after a stream id ("0": from the start)."""
    return _events(redis_of(store).xrange(store.keys.events(queue), f"({after}", "+", count=count))


def events_about(store: Store, queue: str, task_id: str, *, oldest_ms: int, most: int) -> About:
    """Look for one task among the ``most`` latest events of a queue."""
    needle = task_id.encode()
    later = needle + _LATER_LETTER
    own: list[StreamEvent] = []
    batches: list[StreamEvent] = []
    looked_at = 0
    for stream_id, fields in _raw_backwards(store, queue, oldest_ms, most):
        looked_at += 1
        # Nearly all are another task's: what is not decoded costs a third.
        about = fields.get(b"i", b"")
        if about == needle or about.startswith(later):
            own.append(StreamEvent(stream_id.decode(), texts(fields)))
        elif not about and fields.get(b"k") == b"claimed":
            batches.append(StreamEvent(stream_id.decode(), texts(fields)))
    return About(own, batches, looked_at)


def history(store: Store, task_id: str) -> str:
    """Return the history in a task's record, as lua/lib/history.lua writes it; "" for none."""
    return text(redis_of(store).hget(store.keys.task(task_id), "h"))


def _raw_backwards(
    store: Store, queue: str, oldest_ms: int, most: int
) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    before = "+"
    while most > 0:
        count = min(_PAGE, most)
        name = store.keys.events(queue)
        found = redis_of(store).xrevrange(name, before, str(oldest_ms), count=count)
        yield from found
        if len(found) < count:
            return
        before, most = f"({found[-1][0].decode()}", most - count


def _events(found: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[StreamEvent]:
    return [StreamEvent(stream_id.decode(), texts(fields)) for stream_id, fields in found]


class News(NamedTuple):
    """What has happened in some queues, oldest first.

    Args:
        own: of one task, with the queue.
        after: for each queue up to where it was read.
    """

    own: list[tuple[str, StreamEvent]]
    after: dict[str, str]


def newest_ids(store: Store, queues: Sequence[str]) -> dict[str, str]:
    """Return the id of each queue's latest event, "0" when there is none."""
    with redis_of(store).pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.xrevrange(store.keys.events(queue), count=1)
        found = pipe.execute()
    ids = (each[0][0].decode() if each else "0" for each in found)
    return dict(zip(queues, ids, strict=True))


def await_news(store: Store, task_id: str, after: Mapping[str, str], block_ms: int | None) -> News:
    """Wait for something to happen in some queues.

    Args:
        task_id: of whom to tell.
        after: from where to read each queue's stream.
        block_ms: how long to wait at most; None not at all.
    """
    streams = {store.keys.events(queue): stream_id for queue, stream_id in after.items()}
    names = {store.keys.events(queue).encode(): queue for queue in after}
    needle, news = task_id.encode(), News([], dict(after))
    if not streams:
        time.sleep((block_ms or 0) / 1000)
        return news
    for name, entries in redis_of(store).xread(streams, count=_PAGE, block=block_ms) or ():
        queue = names[name]
        for stream_id, fields in entries:
            about = fields.get(b"i", b"")
            if about == needle or about.startswith(needle + _LATER_LETTER):
                news.own.append((queue, StreamEvent(stream_id.decode(), texts(fields))))
        news.after[queue] = entries[-1][0].decode()
    return news
