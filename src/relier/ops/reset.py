"""Forget workers that are dead: have what they hold brought back now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from relier.ops.fleet import Worker
from relier.store import fleet, reading, reaping
from relier.store.broker import Broker
from relier.store.client import Store
from relier.store.fleet import Survey
from relier.store.reading import InHand
from relier.store.reaping import Suspect

_WATCH_S = 2.0
"""A living worker beats twice a second, however long its lease is."""

_EVERY_S = 0.1
_TRIES = 20

LIVES, FROZEN, DEAD = "lives", "frozen", "dead"


@dataclass(frozen=True, slots=True)
class Judged:
    """A worker as it was found.

    Args:
        state: "lives"; "frozen" (silent for two seconds, but for no longer than its lease, and its
            connection is open or cannot be seen); "dead".
        why: what was seen.
        beat, client_id: by which it was judged: if it has beaten or reconnected since, it lives.
    """

    worker_id: str
    name: str
    state: str
    why: str
    beat: str
    client_id: str


@dataclass(frozen=True, slots=True)
class Reset:
    """What became of a worker that was forgotten.

    Args:
        running: tasks it ran, which come back as after any death; ``claimed``: messages it had not
            begun, which go back unblamed; ``committed``: ended, what follows from them is sent
            again.
        gone: whether all of that has happened; else it waits for a worker or a resurrector.
    """

    worker_id: str
    name: str
    running: int
    claimed: int
    committed: int
    gone: bool


def watch(store: Store, members: Sequence[Worker], watch_s: float = _WATCH_S) -> list[Judged]:
    """Look at workers for a while, and say of each whether it lives."""
    first = fleet.survey(store)
    last, until_s = first, time.monotonic() + watch_s
    while time.monotonic() < until_s:
        if all(_beat(first, each) != _beat(last, each) or each.dying for each in members):
            break
        time.sleep(_EVERY_S)
        last = fleet.survey(store)
    now_ms = reading.now_ms(store)
    return [_judge(each, first, last, now_ms) for each in members]


def forget(broker: Broker, judged: Judged, *, force: bool, timeout_s: float) -> Reset | None:
    """Mark a worker as dying, and wait until what it held was brought back.

    That is done by whichever worker or resurrector comes first, by the fleet's own limits.

    Args:
        force: though it lives: it goes on under another id, and what it runs commits nothing.
        timeout_s: how long to wait.

    Returns:
        None when it lives after all, and nothing was done.
    """
    store, worker_id = broker.store, judged.worker_id
    queues = fleet.known_queues(store)
    hands = reading.in_hand(store, [(worker_id, queue) for queue in queues])
    if not _mark(broker, judged, force=force):
        return None
    until_s = time.monotonic() + timeout_s
    while not (gone := not reading.worker_entry(store, worker_id)):
        if time.monotonic() > until_s:
            break
        time.sleep(_EVERY_S)
    return _reset(judged, hands, gone=gone)


def _mark(broker: Broker, judged: Judged, *, force: bool) -> bool:
    store = broker.store
    # A batch of nothing: it marks the worker, and leaves all moves to those who know the limits.
    rules = broker.reap_rules._replace(batch_size=0)
    suspect = Suspect(judged.worker_id, judged.beat, judged.client_id)
    for _ in range(_TRIES):
        entry = reading.worker_entry(store, judged.worker_id)
        if not entry or "dying" in entry:
            return True
        if force:
            suspect = suspect._replace(
                beat=entry.get("beat", ""), client_id=entry.get("client_id", "")
            )
        queues = fleet.known_queues(store)
        done = store.run(reaping.reap(store.keys, suspect, queues, "reset by hand", rules))
        if done.status == "alive" and not force:
            return False
    return False


def _beat(seen: Survey, member: Worker) -> str:
    return seen.entries.get(member.worker_id, {}).get("beat", "")


def _judge(member: Worker, first: Survey, last: Survey, now_ms: int) -> Judged:
    entry = last.entries.get(member.worker_id, {})
    state, why = FROZEN, "it has not beaten for two seconds, but its connection is open"
    if not entry or "dying" in entry:
        state, why = DEAD, "it is being brought back already"
    elif _beat(first, member) != _beat(last, member):
        state, why = LIVES, "it beats"
    elif now_ms - int(entry.get("seen") or 0) >= int(entry.get("hb") or 0):
        state, why = DEAD, "it has been silent for longer than its lease"
    elif last.connected is None or not entry.get("client_id") or entry["run_id"] != last.run_id:
        why = "it has not beaten for two seconds, and its connection cannot be seen from here"
    elif entry["client_id"] not in last.connected and entry["client_id"] not in (
        first.connected or ()
    ):
        state, why = DEAD, "its connection is gone"
    beat, client_id = entry.get("beat", ""), entry.get("client_id", "")
    return Judged(member.worker_id, member.name, state, why, beat, client_id)


def _reset(judged: Judged, hands: Sequence[InHand], *, gone: bool) -> Reset:
    running = sum(each.running for each in hands)
    committed = sum(each.committed for each in hands)
    claimed = sum(each.claimed for each in hands) - running - committed
    return Reset(judged.worker_id, judged.name, running, claimed, committed, gone)
