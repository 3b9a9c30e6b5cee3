"""What is left in Redis when all tasks are done: nothing but records, results and letters."""

from __future__ import annotations

import redis

from support.wait import wait_for

# One step, or a message that moves meanwhile is seen in neither place. A key that holds nothing
# does not exist.
_OCCUPIED = """
local found = {}
for _, key in ipairs(redis.call('KEYS', 'rl:{*')) do
  local part = string.match(key, '}:(%w+)')
  local holds = {claims = true, replay = true, scheduled = true, parked = true}
  if holds[part] then found[#found + 1] = key end
end
for _, queue in ipairs(redis.call('SMEMBERS', 'rl:queues')) do
  for _, suffix in ipairs({'', '\\6\\0223', '\\6\\0226', '\\6\\0229'}) do
    if redis.call('EXISTS', queue .. suffix) == 1 then found[#found + 1] = queue .. suffix end
  end
end
return found
"""


def leftovers(client: redis.Redis) -> dict[str, object]:
    """Return every waiting, scheduled, claimed or committed message, by key; empty when settled."""
    return {key.decode(): _content(client, key) for key in client.eval(_OCCUPIED, 0)}


def assert_settled(client: redis.Redis, deadline_s: float = 10.0) -> None:
    """Wait until no message waits, is scheduled, claimed or committed; records may stay."""
    wait_for(lambda: not leftovers(client), deadline_s, lambda: f"left: {leftovers(client)}")


def _content(client: redis.Redis, key: bytes) -> object:
    """What the key holds by now."""
    readers = {
        b"hash": lambda: client.hgetall(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"zset": lambda: client.zrange(key, 0, -1, withscores=True),
    }
    return readers.get(client.type(key), lambda: "gone by now")()
