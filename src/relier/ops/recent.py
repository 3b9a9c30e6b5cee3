"""What the latest events say: how long runs take, and when something last came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relier.ops import events
from relier.ops.events import Event
from relier.store import reading
from relier.store.client import Store

_MOST_QUEUES = 10
_EVENTS_PER_QUEUE = 500
_WINDOW_MS = 300_000
_ENDS = ("ended", "committed")


@dataclass(frozen=True, slots=True)
class Recovery:
    """The last time that a task came back from a dead process."""

    at_ms: int
    task_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recent:
    """What the latest events say.

    Args:
        p95_ms: so long do 95 % of the runs take at most that ended in the last five minutes, as far
            as the events that are looked at reach; None without one.
    """

    p95_ms: int | None
    last_recovery: Recovery | None


def look(store: Store, queues: Sequence[str], now_ms: int) -> Recent:
    """Look at the latest events of some queues.

    Args:
        queues: the most interesting first; ten are looked at.
    """
    found = events.latest(store, queues[:_MOST_QUEUES], _EVENTS_PER_QUEUE)
    durations = _durations(found, now_ms - _WINDOW_MS)
    p95_ms = sorted(durations)[(95 * len(durations) - 1) // 100] if durations else None
    back = next((event for event in found if event.recovery), None)
    last = Recovery(back.at_ms, back.task_id, back.detail) if back else None
    return Recent(p95_ms, _later(last, _last_death(store)))


def _durations(found: Sequence[Event], oldest_ms: int) -> list[int]:
    """Return how long the runs took whose both ends are among these events."""
    began = {(e.worker, e.claim): e.at_ms for e in found if e.kind == "started"}
    ended: dict[tuple[str, str], int] = {}
    for (
        event
    ) in found:  # newest first, so that a commit takes the place of the end that followed it
        if event.kind in _ENDS and event.at_ms >= oldest_ms:
            ended[event.worker, event.claim] = event.at_ms
    return [at_ms - began[run] for run, at_ms in ended.items() if run in began]


def _last_death(store: Store) -> Recovery | None:
    """Return the last worker whose tasks came back, however many events there were since."""
    for at_ms, fields in reading.past_workers(store):
        if fields.get("k") == "dead" and events.number(fields.get("d")):
            return Recovery(at_ms, "", f"{fields.get('n', '')} dead ({fields.get('r', '')})")
    return None


def _later(one: Recovery | None, other: Recovery | None) -> Recovery | None:
    # The same death is in both places, within one script; the one with its task tells more.
    if one is None or other is None:
        return one or other
    return other if other.at_ms > one.at_ms + 1000 else one
