"""Read who is in the fleet. Reading changes nothing and needs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redis import exceptions

from relier.protocol.identity import Claim
from relier.store.client import Store, judge


class Survey(NamedTuple):
    """One look at the fleet.

    Args:
        entries: each worker's entry by its id; empty for one that has just gone.
        connected: the client ids among theirs that the server still knows, or None when it may not
            be asked.
        run_id: the server's; it changes with a restart and with a failover.
    """

    entries: Mapping[str, Mapping[str, str]]
    connected: set[str] | None
    run_id: str


def survey(store: Store) -> Survey:
    """Look at the fleet.

    Raises:
        RedisConnectionError: the server is away.
    """
    try:
        entries = _entries(store)
        client_ids = [entry["client_id"] for entry in entries.values() if entry.get("client_id")]
        return Survey(entries, connected_clients(store, client_ids), _run_id(store))
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise


def known_queues(store: Store) -> list[str]:
    """Return the names of the queues relier has seen."""
    return sorted(_texts(store.redis.smembers(store.keys.queues)))


def started_claims(store: Store, worker: str, queues: Sequence[str]) -> set[Claim]:
    """Return a worker's claims that have started, the committed ones among them."""
    try:
        with store.redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.hkeys(store.keys.claims(queue, worker))
            found = pipe.execute()
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise
    return {
        Claim(worker, queue, field.removeprefix("s:"))
        for queue, fields in zip(queues, found, strict=True)
        for field in _texts(fields)
        if field.startswith("s:")
    }


def parked_keys(store: Store, most: int) -> list[str]:
    """Return some idempotency keys behind which duplicates are parked."""
    try:
        return _texts(store.redis.srandmember(store.keys.parked_keys, most))
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise


def states(store: Store, task_ids: Sequence[str]) -> list[str]:
    """Return the state in each task's record, or "".

    Raises:
        RedisConnectionError: the server is away.
    """
    try:
        with store.redis.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                pipe.hget(store.keys.task(task_id), "s")
            return [(state or b"").decode() for state in pipe.execute()]
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise


def root_token(store: Store, task_id: str) -> str:
    """Return the token with which a task's present life began, or "" when it has no record.

    Raises:
        RedisConnectionError: the server is away.
    """
    try:
        found: Any = store.redis.hget(store.keys.task(task_id), "rt")
        return found.decode() if found else ""
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise


def take_tick(store: Store, tick_ms: int) -> bool:
    """Return whether this Phoenix may work now; one may per tick."""
    try:
        return bool(store.redis.set(store.keys.phoenix_tick, "1", nx=True, px=tick_ms))
    except exceptions.OutOfMemoryError:
        # Two that reap at once do no harm; a dead worker's tasks must not wait for room.
        return True
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise


def prove_writable(store: Store) -> None:
    """Write without changing anything, as a worker's beat is written: room it needs none.

    Raises:
        RedisConnectionError: the server is away, or takes no writes.
    """
    try:
        store.redis.srem(store.keys.workers, "")
    except exceptions.RedisError as error:
        judge(error, store.address, out_of_time=True)
        raise


def _entries(store: Store) -> dict[str, dict[str, str]]:
    workers = sorted(_texts(store.redis.smembers(store.keys.workers)))
    if not workers:
        return {}
    with store.redis.pipeline(transaction=False) as pipe:
        for worker in workers:
            pipe.hgetall(store.keys.worker(worker))
        found = pipe.execute()
    return {
        worker: {k.decode(): v.decode(errors="replace") for k, v in entry.items()}
        for worker, entry in zip(workers, found, strict=True)
    }


def connected_clients(store: Store, client_ids: Sequence[str]) -> set[str] | None:
    """Return which client ids the server knows, or None when it may not be asked."""
    if not client_ids:
        return set()
    try:
        listed: Any = store.redis.execute_command("CLIENT", "LIST", "ID", *client_ids)
    except exceptions.ResponseError:
        # An ACL that forbids it; then silence alone tells.
        return None
    if isinstance(listed, bytes | str):
        text = listed.decode() if isinstance(listed, bytes) else listed
        return {line.split(" ", 1)[0].removeprefix("id=") for line in text.splitlines() if line}
    return {str(client["id"]) for client in listed}


def _run_id(store: Store) -> str:
    return str(store.redis.info("server")["run_id"])


def _texts(values: Any) -> list[str]:
    return [value.decode() for value in values]
