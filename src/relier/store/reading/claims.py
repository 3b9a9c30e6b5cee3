"""What the workers hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relier.store.client import Store
from relier.store.reading.messages import Waiting, unwrap
from relier.store.reading.replies import redis_of

_LARGEST_PARCEL_BYTES = 1_000_000


class HeldClaim(NamedTuple):
    """One claim as its worker's hash shows it.

    Args:
        started: whether a process has begun it.
        committed: whether its outcome is saved.
        task_id: once started, else "".
        fence, starts, returns: once started, else 0.
    """

    worker: str
    queue: str
    number: str
    started: bool
    committed: bool
    task_id: str
    fence: int
    starts: int
    returns: int


def held(store: Store, pairs: Sequence[tuple[str, str]]) -> list[HeldClaim]:
    """Return the claims of (worker, queue) pairs, oldest first."""
    names = [store.keys.claims(queue, worker) for worker, queue in pairs]
    with redis_of(store).pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hkeys(name)
        fields = [{field.decode() for field in reply} for reply in pipe.execute()]
    numbers = [sorted((f for f in each if f.isdigit()), key=int) for each in fields]
    with redis_of(store).pipeline(transaction=False) as pipe:
        for name, own in zip(names, numbers, strict=True):
            for number in own:
                pipe.hget(name, f"s:{number}")
        started = iter(pipe.execute())
    return [
        _held(worker, queue, number, next(started), f"o:{number}" in own_fields)
        for (worker, queue), own, own_fields in zip(pairs, numbers, fields, strict=True)
        for number in own
    ]


def parcel_size(store: Store, claim: HeldClaim) -> int:
    """Return the bytes of a claim's message; 0 when it has gone."""
    return int(redis_of(store).hstrlen(store.keys.claims(claim.queue, claim.worker), claim.number))


def parcels(
    store: Store, claims: Sequence[HeldClaim], largest: int = _LARGEST_PARCEL_BYTES
) -> list[Waiting | None]:
    """Return the message of each claim; None for one that is gone, or too large."""
    keys = store.keys
    where = [(keys.claims(each.queue, each.worker), each.number) for each in claims]
    with redis_of(store).pipeline(transaction=False) as pipe:
        for name, number in where:
            pipe.hstrlen(name, number)
        sizes = pipe.execute()
    with redis_of(store).pipeline(transaction=False) as pipe:
        for (name, number), size in zip(where, sizes, strict=True):
            pipe.hget(name, number if size <= largest else "")
        return [None if parcel is None else unwrap(parcel) for parcel in pipe.execute()]


def _held(
    worker: str, queue: str, number: str, started: bytes | None, committed: bool
) -> HeldClaim:
    if started is None:
        return HeldClaim(worker, queue, number, False, committed, "", 0, 0, 0)
    fence, starts, returns, task_id = started.decode().split("|", 3)
    return HeldClaim(
        worker, queue, number, True, committed, task_id, int(fence), int(starts), int(returns)
    )
