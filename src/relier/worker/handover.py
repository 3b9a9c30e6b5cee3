"""Give stopped tasks to other workers, and find out where each of them stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from relier.store import claiming, fleet, reaping
from relier.store.claiming import Returned
from relier.worker.membership import Membership

Where = Literal["handed over", "completed", "to be concluded"]

_OVER = {"e", "d", "c", "w"}


def hand_over(membership: Membership, requests: Iterable[Any]) -> dict[Any, Where]:
    """Put started tasks back at the head of their queues, unblamed.

    Args:
        membership: the worker's.
        requests: their bodies were stopped, or end with this process at once.

    Returns:
        For each request "handed over"; or "completed", for it had ended before; or "to be
        concluded": its outcome is saved, and another worker sends what follows from it.

    Raises:
        RedisConnectionError: the server is away; what is not handed over will be reaped.
    """
    by_queue: dict[tuple[str, str], list[Any]] = {}
    for request in requests:
        by_queue.setdefault(request.claim[:2], []).append(request)
    where: dict[Any, Where] = {}
    for (worker, queue), mine in by_queue.items():
        claims = [Returned(request.claim.number, request.id) for request in mine]
        verdicts = membership.broker.store.run(
            claiming.release(membership.broker.keys, worker, queue, claims, "drain", stopped=True)
        )
        for request in mine:
            handed = bool(verdicts[request.claim.number])
            where[request] = "handed over" if handed else _find(membership, request)
    return where


def _find(membership: Membership, request: Any) -> Where:
    """Find out about a claim that was not released: committed, or gone, perhaps by a lost reply."""
    broker = membership.broker
    reaped = broker.store.run(
        reaping.reap_claim(broker.keys, request.claim, "drain", broker.reap_rules)
    )
    if reaped.verdict == "replay":
        return "to be concluded"
    [state] = fleet.states(broker.store, [request.id])
    return "completed" if state in _OVER else "handed over"
