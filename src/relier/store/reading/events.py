"""The event stream of a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from relier.store.client import Store
from relier.store.reading.replies import redis_of, texts


class StreamEvent(NamedTuple):
    """One entry of a queue's event stream."""

    stream_id: str
    fields: Mapping[str, str]

    @property
    def at_ms(self) -> int:
        """Return when it was written, on the server's clock."""
        return int(self.stream_id.partition("-")[0])


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


def _events(found: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[StreamEvent]:
    return [StreamEvent(stream_id.decode(), texts(fields)) for stream_id, fields in found]
