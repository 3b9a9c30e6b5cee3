"""Read who is in the fleet. Reading changes nothing and needs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redis import exceptions

from relier.store.client import Store


def known_queues(store: Store) -> list[str]:
    """Return the names of the queues relier has seen."""
    return sorted(name.decode() for name in store.redis.smembers(store.keys.queues))


def entries(store: Store) -> Mapping[str, Mapping[str, str]]:
    """Return the entry of each worker by its id; one that has just gone has an empty entry."""
    workers = sorted(name.decode() for name in store.redis.smembers(store.keys.workers))
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
    """Return which client ids the server still knows, or None when we may not ask."""
    if not client_ids:
        return set()
    try:
        listed = store.redis.execute_command("CLIENT", "LIST", "ID", *client_ids)
    except (exceptions.NoPermissionError, exceptions.ResponseError):
        return None
    if isinstance(listed, bytes):
        listed = listed.decode()
    if isinstance(listed, str):
        return {line.split(" ", 1)[0].removeprefix("id=") for line in listed.splitlines() if line}
    return {str(client["id"]) for client in listed}


def run_id(store: Store) -> str:
    """Return the server's run id; it changes with a restart and with a failover."""
    return str(store.redis.info("server")["run_id"])


def take_tick(store: Store, tick_ms: int) -> bool:
    """Return whether this Phoenix may work now; one may per tick."""
    return bool(store.redis.set(store.keys.phoenix_tick, "1", nx=True, px=tick_ms))
