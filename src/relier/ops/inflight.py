"""What runs at this moment, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relier.ops import fleet, messages, recent
from relier.ops.fleet import Queue, Worker
from relier.ops.recent import Recovery
from relier.store import fleet as store_fleet
from relier.store import reading
from relier.store.broker import Broker
from relier.store.client import Store
from relier.store.fleet import Survey
from relier.store.reading import HeldClaim


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
class Snapshot:
    """The fleet at one moment.

    Args:
        at_ms: on the server's clock.
        held: how many messages the workers hold; ``tasks`` shows at most the limit asked for.
        waiting: how many wait in all queues.
        p95_ms: of the runs that ended of late; None when there were none.
        lost: workers that are dead and whose tasks have not come back yet.
    """

    cluster: str
    at_ms: int
    queues: tuple[Queue, ...]
    workers: tuple[Worker, ...]
    tasks: tuple[InFlight, ...]
    held: int
    waiting: int
    p95_ms: int | None
    lost: tuple[str, ...]
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
    busiest = sorted(queues, key=lambda queue: (queue.claimed, queue.waiting), reverse=True)
    late = recent.look(store, [queue.name for queue in busiest], now_ms)
    return Snapshot(
        cluster=broker.settings.cluster_name,
        at_ms=now_ms,
        queues=queues,
        workers=members,
        tasks=describe(store, shown, names, now_ms),
        held=len(held),
        waiting=sum(queue.waiting for queue in queues),
        p95_ms=late.p95_ms,
        lost=tuple(sorted(_lost(store) & names.keys())),
        last_recovery=late.last_recovery,
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


def _lost(store: Store) -> set[str]:
    """Return the workers that are dead and whose tasks have not come back yet."""
    seen = store_fleet.survey(store)
    return {
        worker for worker, entry in seen.entries.items() if "dying" in entry or _is_cut(entry, seen)
    }


def _is_cut(entry: Mapping[str, str], seen: Survey) -> bool:
    client_id = entry.get("client_id")
    return bool(
        client_id
        and seen.connected is not None
        and entry.get("run_id") == seen.run_id
        and client_id not in seen.connected
    )
