"""What each worker is doing, and whether it lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relier.ops import fleet
from relier.ops.fleet import Worker
from relier.store import fleet as store_fleet
from relier.store import reading
from relier.store.client import Store

BUSY, IDLE, DRAINING, DYING, SILENT = "busy", "idle", "draining", "dying", "silent"


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker process.

    Args:
        state: "busy", "idle", "draining"; "silent" when it has not beaten for longer than its
            lease; "dying" when what it holds is being brought back.
        running: tasks that it runs; ``claimed``: messages it has in hand besides.
        done: tasks it completed; ``failed``: those that ended as failures.
        beat_age_ms: since its last beat.
        lease_s: for how long it may be silent.
        uptime_ms: since it joined.
        relier, celery: their versions; "" of a worker that is too old to say.
    """

    name: str
    worker_id: str
    host: str
    pid: int
    pool: str
    size: int
    queues: tuple[str, ...]
    state: str
    running: int
    claimed: int
    done: int
    failed: int
    beat_age_ms: int
    lease_s: float
    uptime_ms: int
    relier: str
    celery: str


def status(store: Store, members: Sequence[Worker] | None = None) -> tuple[WorkerRow, ...]:
    """Look at workers, all of them by default."""
    if members is None:
        members = fleet.workers(store)
    now_ms = reading.now_ms(store)
    # One that has just come up has not said yet what it takes from.
    everything = tuple(store_fleet.known_queues(store))
    pairs = [(each.worker_id, queue) for each in members for queue in each.queues or everything]
    hands = {each.worker_id: [0, 0] for each in members}
    for held in reading.in_hand(store, pairs):
        # What has committed occupies its worker until all that follows was sent.
        hands[held.worker][0] += held.running + held.committed
        hands[held.worker][1] += held.claimed - held.running - held.committed
    return tuple(_row(each, hands[each.worker_id], now_ms) for each in members)


def _row(member: Worker, hands: Sequence[int], now_ms: int) -> WorkerRow:
    running, claimed = hands
    age_ms = max(now_ms - member.seen_ms, 0)
    return WorkerRow(
        name=member.name,
        worker_id=member.worker_id,
        host=member.host,
        pid=member.pid,
        pool=member.pool,
        size=member.size,
        queues=member.queues,
        state=_state(member, age_ms, busy=running > 0),
        running=running,
        claimed=claimed,
        done=member.done,
        failed=member.failed,
        beat_age_ms=age_ms,
        lease_s=member.lease_s,
        uptime_ms=max(now_ms - member.started_ms, 0),
        relier=member.relier,
        celery=member.celery,
    )


def _state(member: Worker, age_ms: int, *, busy: bool) -> str:
    if member.dying:
        return DYING
    if member.lease_s and age_ms > member.lease_s * 1000:
        return SILENT
    if member.draining:
        return DRAINING
    return BUSY if busy else IDLE
