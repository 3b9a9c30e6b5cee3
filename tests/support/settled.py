"""What is left in Redis when all tasks are done: nothing but records, results and letters."""

from __future__ import annotations

import redis

from support.wait import wait_for


def leftovers(client: redis.Redis) -> dict[str, object]:
    """Return every waiting, scheduled, claimed or committed message, by key; empty when settled."""
    queues = [name.decode() for name in client.smembers("rl:queues")]
    left: dict[str, object] = {}
    for key in (raw.decode(errors="replace") for raw in client.scan_iter("rl:{*", count=1000)):
        part = key.rpartition("}:")[2]
        if part.startswith("claims:"):
            left[key] = client.hgetall(key)
        elif part == "replay":
            left[key] = client.lrange(key, 0, -1)
        elif part == "scheduled":
            left[key] = client.zrange(key, 0, -1, withscores=True)
    for queue in queues:
        for suffix in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
            if waiting := client.lrange(queue + suffix, 0, -1):
                left[queue + suffix] = waiting
    return left


def assert_settled(client: redis.Redis, deadline_s: float = 10.0) -> None:
    """Wait until no message waits, is scheduled, claimed or committed; records may stay."""
    wait_for(lambda: not leftovers(client), deadline_s, lambda: f"left: {leftovers(client)}")
