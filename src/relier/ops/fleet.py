"""Who is in the fleet, and how much its queues hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relier.store import fleet, reading
from relier.store.client import Store
from relier.store.reading import HeldClaim


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process as its entry describes it.

    Args:
        worker_id: unique, never reused.
        name: Celery's node name.
        size: pool processes or threads.
        queues: what it takes messages from.
        done: tasks it completed; ``failed``: those that ended as failures.
        started_ms: since when it is a member, on the server's clock; ``seen_ms``: its last beat.
        lease_s: for how long it may be silent before others take it for dead.
        dying: whether its claims are being brought back.
        draining: whether it was asked to stop and ends what it runs.
        grace_s: how long a drain may take there.
        killed_after_s: when its platform kills it, counted from SIGTERM; None when not known.
        relier, celery: their versions; "" of a worker that is too old to say.
        restarts: "yes", or why it cannot start itself again; "" likewise.
    """

    worker_id: str
    name: str
    host: str
    pid: int
    pool: str
    size: int
    queues: tuple[str, ...]
    done: int
    failed: int
    started_ms: int
    seen_ms: int
    lease_s: float
    dying: bool
    draining: bool
    grace_s: float
    killed_after_s: float | None
    relier: str
    celery: str
    restarts: str


@dataclass(frozen=True, slots=True)
class Queue:
    """How much a queue holds: waiting, not due, claimed by workers, to be replayed, dead."""

    name: str
    waiting: int
    scheduled: int
    claimed: int
    replay: int
    dead: int
    paused: bool


def workers(store: Store) -> tuple[Worker, ...]:
    """Return the workers of the fleet by name; an entry that has just gone is left out."""
    found = [_worker(*each) for each in reading.worker_entries(store).items() if each[1]]
    return tuple(sorted(found, key=lambda worker: (worker.name, worker.started_ms)))


def claims(store: Store, members: Iterable[Worker]) -> list[HeldClaim]:
    """Return what the workers hold."""
    everything = tuple(fleet.known_queues(store))
    pairs = [(w.worker_id, queue) for w in members for queue in w.queues or everything]
    return reading.held(store, pairs)


def queues(store: Store, held: Iterable[HeldClaim]) -> tuple[Queue, ...]:
    """Return what each known queue holds."""
    names = fleet.known_queues(store)
    claimed = dict.fromkeys(names, 0)
    for claim in held:
        claimed[claim.queue] = claimed.get(claim.queue, 0) + 1
    return tuple(
        Queue(
            name,
            depth.waiting,
            depth.scheduled,
            claimed[name],
            depth.replay,
            depth.dead,
            depth.paused,
        )
        for name, depth in reading.depths(store, names).items()
    )


def _worker(worker_id: str, entry: Mapping[str, str]) -> Worker:
    return Worker(
        worker_id=worker_id,
        name=entry.get("name") or worker_id,
        host=entry.get("host", ""),
        pid=int(entry.get("pid") or 0),
        pool=entry.get("pool", ""),
        size=int(entry.get("size") or 0),
        queues=tuple(filter(None, entry.get("queues", "").split(","))),
        done=int(entry.get("done") or 0),
        failed=int(entry.get("failed") or 0),
        started_ms=int(entry.get("started_ms") or 0),
        seen_ms=int(entry.get("seen") or entry.get("started_ms") or 0),
        lease_s=int(entry.get("hb") or 0) / 1000,
        dying="dying" in entry,
        draining="draining" in entry,
        grace_s=int(entry.get("grace") or 0) / 1000,
        killed_after_s=int(entry["killed_after"]) / 1000 if entry.get("killed_after") else None,
        relier=entry.get("relier", ""),
        celery=entry.get("celery", ""),
        restarts=entry.get("restarts", ""),
    )
