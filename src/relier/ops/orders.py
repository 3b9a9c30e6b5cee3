"""Orders about one task: not to run, or to run now."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relier.ops import events, revival
from relier.ops.places import (
    CLAIMED,
    DEAD,
    ENDED,
    QUEUED,
    RUNNING,
    SCHEDULED,
    favoured,
    newest_letter,
)
from relier.ops.revival import Release
from relier.ops.search import locate, scheduled_parcel
from relier.protocol.envelope import Keyring
from relier.protocol.identity import Claim
from relier.store import fleet, publishing, reading, running
from relier.store.client import Store

UNKNOWN, STOPPED = "unknown", "stopped"
_ENDS_WITHIN_MS = 60_000
_MOST_EVENTS = 20_000
WAITING, COMMITTED = "waiting", "committed"
_STATES = {"q": WAITING, "r": RUNNING, "c": COMMITTED, "e": ENDED, "d": DEAD}


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What an order not to run has done.

    Args:
        state: where the task was: "scheduled", "queued", "claimed", "waiting" (parked, or farther
            back in its queue than was looked), "running", "committed", "ended" or "dead".
        noted: whether it will not run, nor run again; False when it had ended.
        ordered: whether the worker that runs it was ordered to stop it.
        too_old: whether that worker's relier does not follow such orders.
        worker, claim: that worker, and the run that it was to be ordered to stop; else "".
    """

    task_id: str
    name: str
    state: str
    queue: str
    noted: bool
    ordered: bool
    too_old: bool
    worker: str = ""
    claim: str = ""


@dataclass(frozen=True, slots=True)
class Retried:
    """What an order to run now has done.

    Args:
        state: where the task was, as in ``Cancelled``.
        hastened: whether it was scheduled and is due now.
        release: of its dead letter, or None.
    """

    task_id: str
    state: str
    queue: str
    hastened: bool
    release: Release | None


def cancel(store: Store, task_id: str, *, terminate: bool = False) -> Cancelled | None:
    """Leave word that a task is not to run, wherever it waits; None when nothing is known of it.

    Whoever starts it next commits REVOKED in its place, so that its result, and a chord it belongs
    to, hear of it. One that is scheduled is made due for that.

    Args:
        terminate: order the worker that runs it to stop it.
    """
    found = _find(store, task_id)
    if found is None:
        return None
    record, state, queue = found
    noted = store.run(running.revoke(store.keys, task_id))
    if noted and state == SCHEDULED:
        _hasten(store, queue, task_id, record)
    done = Cancelled(
        task_id, record.get("n", ""), state, queue, noted, ordered=False, too_old=False
    )
    if not terminate or state != RUNNING:
        return done
    claim = Claim(record.get("w", ""), queue, record.get("c", ""))
    answer = store.run(running.terminate(store.keys, claim, task_id))
    return replace(
        done,
        ordered=answer == running.ORDERED,
        too_old=answer == running.TOO_OLD,
        worker=claim.worker,
        claim=claim.number,
    )


def retry(store: Store, task_id: str, keyring: Keyring) -> Retried | None:
    """Have a task run now that is dead or scheduled; None when nothing is known of it.

    Args:
        keyring: the keys to verify and sign the message of a dead letter with.

    Raises:
        PayloadError: the message of its letter is no task message.
        PayloadIntegrityError: the message of its letter does not verify.
    """
    found = _find(store, task_id)
    letter = _letter(store, task_id, found[2] if found else "")
    alive = found is not None and found[1] not in (ENDED, DEAD)
    if letter is not None and not alive:
        done = revival.release(store, letter, keyring, revival.Order())
        return Retried(task_id, DEAD, letter.queue, False, done)
    if found is None:
        return None
    record, state, queue = found
    hastened = state == SCHEDULED and _hasten(store, queue, task_id, record)
    return Retried(task_id, state, queue, hastened, None)


def still_runs(store: Store, task_id: str) -> bool:
    """Return whether a process is at work on a task's body, as far as its record says."""
    return reading.records(store, [task_id])[0].get("s") == "r"


def end_of(store: Store, order: Cancelled) -> str:
    """Return how the run ended that a worker was ordered to stop.

    Returns:
        ``STOPPED``; the state it committed by itself, as "SUCCESS"; or "" when it did neither, as
        far as its queue's events say: its worker died, or gave it back.
    """
    oldest_ms = reading.now_ms(store) - _ENDS_WITHIN_MS
    about = reading.events_about(
        store, order.queue, order.task_id, oldest_ms=oldest_ms, most=_MOST_EVENTS
    )
    for each in (events.event_of(order.queue, found) for found in about.own):
        if (each.worker, each.claim) != (order.worker, order.claim):
            continue
        if each.kind == "condemned":
            return STOPPED if each.detail == "revoked" else "FAILURE"
        # What commits and ends in one step has no other event, and says its state there.
        if each.kind == "committed" or (each.kind == "ended" and each.detail):
            return each.detail
    return ""


def _find(store: Store, task_id: str) -> tuple[dict[str, str], str, str] | None:
    """Return a task's record, where it is, and its queue."""
    record = reading.records(store, [task_id])[0]
    queues = fleet.known_queues(store)
    own = record.get("q", "")
    state = _STATES.get(record.get("s", ""), UNKNOWN)
    if state == WAITING and own and scheduled_parcel(store, own, task_id, record):
        return record, SCHEDULED, own
    if state not in (WAITING, UNKNOWN):
        return record, state, own
    place = locate(store, task_id, record, queues)
    if place.state in (QUEUED, CLAIMED, SCHEDULED, RUNNING):
        return record, place.state, place.queue
    return (record, state, own) if record else None


def _letter(store: Store, task_id: str, home: str) -> revival.Found | None:
    """Return the newest of a task's dead letters."""
    for queue in favoured(fleet.known_queues(store), home):
        found = revival.find(store, newest_letter(store, queue, task_id), [queue])
        if found is not None:
            return found
    return None


def _hasten(store: Store, queue: str, task_id: str, record: dict[str, str]) -> bool:
    parcel = scheduled_parcel(store, queue, task_id, record)
    if parcel is None:
        return False
    return store.run(publishing.hasten(store.keys, queue, task_id, parcel))
