"""Follow one task: its way so far, then each move as it is made."""

from __future__ import annotations

from collections.abc import Iterator

from relier.ops import events, timeline
from relier.ops.events import Event
from relier.ops.places import TERMINAL, favoured, letter_of
from relier.ops.timeline import Subject
from relier.store import fleet, reading
from relier.store.client import Store

_LONGEST_WAIT_S = 2.0


class Follower:
    """The moves of one task.

    Args:
        store: the server.
        task_id: whose.
    """

    def __init__(self, store: Store, task_id: str) -> None:
        self._store = store
        self._task_id = task_id
        self._queues = fleet.known_queues(store)
        record = self._record()
        letter = None
        if record.get("s") in (None, *TERMINAL):
            letter = letter_of(store, favoured(self._queues, record.get("q")), task_id)
        self._life = record.get("l", "")
        self._subject = Subject(
            task_id,
            home=letter.queue if letter else record.get("q", ""),
            lines=letter.lines if letter else reading.history(store, task_id),
            since_ms=int(record.get("at") or 0),
        )
        home = [self._subject.home] if self._subject.home else []
        # From before the way so far is read, so that nothing falls between the two.
        self._after = reading.newest_ids(store, home)
        self._seen: set[tuple[str, str]] = set()
        self._so_far = timeline.of_task(store, self._subject, self._queues)
        self.known = bool(record or letter or self._so_far)

    def so_far(self) -> Iterator[Event]:
        """Yield what is remembered of its way, oldest first."""
        for event in self._so_far:
            self._seen.add((event.queue, event.stream_id))
            yield event
        self._follow_queues({event.queue for event in self._so_far})

    def coming(self) -> Iterator[Event]:
        """Yield each move as it is made, until the task has ended or is dead."""
        while True:
            over = self._over()
            yield from self._news(block_ms=None if over else self._block_ms)
            if over:
                return

    @property
    def _block_ms(self) -> int:
        # The connection gives up on a server that is silent for longer than its timeout.
        return max(int(min(self._store.timeout_s / 2, _LONGEST_WAIT_S) * 1000), 1)

    def _news(self, block_ms: int | None) -> Iterator[Event]:
        news = reading.await_news(self._store, self._task_id, self._after, block_ms)
        self._after.update(news.after)
        fresh = [events.event_of(queue, each) for queue, each in news.own]
        fresh = [event for event in fresh if (event.queue, event.stream_id) not in self._seen]
        if not fresh:
            return
        claims = timeline.claims_of(self._store, fresh, self._subject)
        fresh += [each for each in claims if (each.queue, each.stream_id) not in self._seen]
        for event in sorted(timeline.named(self._store, fresh), key=lambda each: each.place):
            self._seen.add((event.queue, event.stream_id))
            yield event

    def _over(self) -> bool:
        record = self._record()
        if record.get("q"):
            self._follow_queues({record["q"]})
        return record.get("s") in (None, *TERMINAL) or record.get("l", "") != self._life

    def _follow_queues(self, queues: set[str]) -> None:
        """Follow what else it is in by now: retries and resurrections may go to another queue."""
        last_ms = max((int(each.partition("-")[0]) for each in self._after.values()), default=0)
        for queue in queues - self._after.keys():
            self._after[queue] = f"{max(last_ms - 1, 0)}-0"

    def _record(self) -> dict[str, str]:
        return reading.records(self._store, [self._task_id])[0]
