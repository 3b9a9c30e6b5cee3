"""What runs at this moment, and where."""

from __future__ import annotations

from dataclasses import dataclass

from relier.ops import events, fleet, messages
from relier.ops.fleet import Queue, Worker
from relier.store import reading
from relier.store.broker import Broker
from relier.store.client import Store
from relier.store.reading import HeldClaim

_EVENTS_LOOKED_AT = 500


@dataclass(frozen=True, slots=True)
class InFlight:
    """One message in a worker's hands.

    Args:
        state: "claimed" (not begun), "running", or "committed" (its consequences are being sent).
        duration_ms: since it was started; None for one that was not.
        attempt: which start of this life it is; 0 for one that was not started.
        returns: how often it came back from a dead process.
    """

    worker_id: str
    worker: str
    task_id: str
    name: str
    state: str
    queue: str
    duration_ms: int | None
    attempt: int
    returns: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """The last time that a task came back from a dead process."""

    at_ms: int
    task_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet at one moment.

    Args:
        at_ms: on the server's clock.
        held: how many messages the workers hold; ``tasks`` shows at most the limit asked for.
    """

    cluster: str
    at_ms: int
    queues: tuple[Queue, ...]
    workers: tuple[Worker, ...]
    tasks: tuple[InFlight, ...]
    held: int
    last_recovery: Recovery | None


def snapshot(broker: Broker, *, worker: str | None = None, limit: int = 200) -> Snapshot:
    """Look at the fleet.

    Args:
        worker: only this worker (its id or its name); None for all.
        limit: how many tasks to describe, the running ones first.
    """
    store = broker.store
    members = fleet.workers(store)
    if worker is not None:
        members = tuple(w for w in members if worker in (w.worker_id, w.name))
    held = fleet.claims(store, members)
    names = {member.worker_id: member.name for member in members}
    now_ms = reading.now_ms(store)
    shown = sorted(held, key=lambda claim: (not claim.started, int(claim.number)))[:limit]
    queues = fleet.queues(store, held)
    return Snapshot(
        cluster=broker.settings.cluster_name,
        at_ms=now_ms,
        queues=queues,
        workers=members,
        tasks=describe(store, shown, names, now_ms),
        held=len(held),
        last_recovery=_last_recovery(store, [queue.name for queue in queues]),
    )


def describe(
    store: Store, held: list[HeldClaim], names: dict[str, str], now_ms: int
) -> tuple[InFlight, ...]:
    """Say of each claim which task it is, from its record or, before the start, its message."""
    started = [claim for claim in held if claim.started]
    others = [claim for claim in held if not claim.started]
    records = dict(
        zip(
            (claim.task_id for claim in started),
            reading.records(store, [claim.task_id for claim in started]),
            strict=True,
        )
    )
    unstarted = {
        claim: messages.read(parcel.raw) if parcel else None
        for claim, parcel in zip(others, reading.parcels(store, others), strict=True)
    }
    return tuple(_described(claim, records, unstarted, names, now_ms) for claim in held)


def _described(
    claim: HeldClaim,
    records: dict[str, dict[str, str]],
    unstarted: dict[HeldClaim, messages.Message | None],
    names: dict[str, str],
    now_ms: int,
) -> InFlight:
    record = records.get(claim.task_id, {}) if claim.started else {}
    message = unstarted.get(claim)
    state = "running" if claim.started else "claimed"
    return InFlight(
        worker_id=claim.worker,
        worker=names.get(claim.worker, claim.worker),
        task_id=claim.task_id or (message.task_id if message else f"claim {claim.number}"),
        name=record.get("n") or (message.name if message else ""),
        state="committed" if claim.committed else state,
        queue=claim.queue,
        duration_ms=max(now_ms - int(record["st"]), 0) if record.get("st") else None,
        attempt=claim.starts,
        returns=claim.returns,
    )


def _last_recovery(store: Store, queues: list[str]) -> Recovery | None:
    for event in events.latest(store, queues, _EVENTS_LOOKED_AT):
        if event.recovery:
            return Recovery(event.at_ms, event.task_id, event.detail)
    return None
