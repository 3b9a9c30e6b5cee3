"""Queues: how much each holds and how fast it moves; pausing one, and letting it go on."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from relier.ops import fleet, messages, rates
from relier.ops.rates import Rate
from relier.store import fleet as store_fleet
from relier.store import pausing, reading
from relier.store.client import Store
from relier.store.pausing import Pause, Paused

_OWN = "rl:"


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue.

    Args:
        waiting: messages in its lists.
        oldest_ms: how long ago the task was accepted that is next in one of them; None when that is
            not known, or nothing waits.
        scheduled: not due yet, retries and resurrected ones among them.
        claimed: in workers' hands and not begun; ``running``: begun; ``replay``: committed, and
            what follows from them is being sent, or is to be.
        dead: dead letters.
        rate: what came in and what ended lately.
        consumers: workers that take from it.
        paused: who paused it, or None.
    """

    name: str
    waiting: int
    oldest_ms: int | None
    scheduled: int
    claimed: int
    running: int
    replay: int
    dead: int
    rate: Rate
    consumers: int
    paused: Pause | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The known queues, by name."""

    rows: tuple[QueueRow, ...]
    now_ms: int


@dataclass(frozen=True, slots=True)
class PauseDone:
    """What an order to pause did; not ``paused``: it was paused before, and that pause stands."""

    queue: str
    paused: bool
    pause: Pause
    running: int
    consumers: int


@dataclass(frozen=True, slots=True)
class ResumeDone:
    """What an order to resume did; not ``resumed``: it was not paused."""

    queue: str
    resumed: bool
    pause: Pause | None


def known(store: Store) -> list[str]:
    """Return the queues that hold, or held, something, and those that workers take from."""
    consumed = {queue for member in fleet.workers(store) for queue in member.queues}
    return sorted(consumed.union(store_fleet.known_queues(store)))


def is_known(store: Store, queue: str) -> bool:
    """Return whether there is such a queue, be it one that only stock producers fill.

    A list of relier's own is none, though it looks like one: what has committed waits there.
    """
    if queue.startswith(_OWN):
        return False
    return queue in known(store) or reading.any_waiting(store, queue)


def listing(store: Store, only: str | None = None) -> Listing:
    """Look at every queue, or at one."""
    names = known(store) if only is None else [only]
    members = fleet.workers(store)
    now_ms = reading.now_ms(store)
    depths = reading.depths(store, names)
    pauses = reading.pauses(store, names)
    ages = _ages(store, names, now_ms)
    moved = rates.of(store, names, now_ms)
    hands = _in_hand(store, members, names)
    rows = [
        QueueRow(
            name=name,
            waiting=depths[name].waiting,
            oldest_ms=ages.get(name),
            scheduled=depths[name].scheduled,
            claimed=hands[name][0] - hands[name][1] - hands[name][2],
            running=hands[name][1],
            replay=depths[name].replay + hands[name][2],
            dead=depths[name].dead,
            rate=moved[name],
            consumers=sum(name in member.queues and not member.dying for member in members),
            paused=pauses.get(name),
        )
        for name in names
    ]
    return Listing(tuple(rows), now_ms)


def pause(store: Store, queue: str, by: str, reason: str) -> PauseDone:
    """Have no worker start a task of a queue any more; what runs goes on."""
    order = secrets.token_hex(8)
    done: Paused = store.run(pausing.pause(store.keys, queue, order, by, reason))
    members = fleet.workers(store)
    return PauseDone(
        queue,
        done.ours,
        done.pause,
        running=_in_hand(store, members, [queue])[queue][1],
        consumers=sum(queue in member.queues and not member.dying for member in members),
    )


def resume(store: Store, queue: str) -> ResumeDone:
    """Let a queue's tasks start again."""
    before = reading.pauses(store, [queue]).get(queue)
    return ResumeDone(queue, store.run(pausing.resume(store.keys, queue)), before)


def _in_hand(
    store: Store, members: Sequence[fleet.Worker], names: Sequence[str]
) -> dict[str, list[int]]:
    """Return for each queue how many messages workers hold, run, and have committed."""
    # A worker that has just come up has not said yet what it takes from.
    pairs = [
        (member.worker_id, name)
        for member in members
        for name in names
        if name in member.queues or not member.queues
    ]
    sums = {name: [0, 0, 0] for name in names}
    for each in reading.in_hand(store, pairs):
        counts = (each.claimed, each.running, each.committed)
        sums[each.queue] = [a + b for a, b in zip(sums[each.queue], counts, strict=True)]
    return sums


def _ages(store: Store, names: Sequence[str], now_ms: int) -> dict[str, int]:
    """Return how long ago the task was accepted that each queue's next message carries."""
    owners: list[str] = []
    ids: list[str] = []
    for name, raws in reading.next_messages(store, names).items():
        found = [message.task_id for message in map(messages.read, raws) if message]
        owners += [name] * len(found)
        ids += found
    ages: dict[str, int] = {}
    for name, record in zip(owners, reading.records(store, ids), strict=True):
        if record.get("at"):
            ages[name] = max(ages.get(name, 0), now_ms - int(record["at"]))
    return ages
