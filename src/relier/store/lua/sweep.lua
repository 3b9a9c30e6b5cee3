#!lua flags=allow-oom
-- sweep: wake duplicates that are parked behind an idempotency key which nobody owns any more. Whatever ends or moves an
--        owner's claim wakes them; this is the net below it.
-- KEYS  1 idempotency key (hash)  2 index of keys with parked duplicates (set)
-- ARGV  queues; none: those that the key names
-- returns 1 nobody is parked there any more, 2 some were woken, and there are more: ask again; 0 its owner runs, or those that
--         are left cannot go back now
--@include parcel
--@include idem
expect(KEYS[2], 'set')
local owner = redis.call('HMGET', KEYS[1], 'w', 'c', 'q')
if is_owned(KEYS[1], owner[1], owner[2], owner[3]) then return 0 end
redis.call('HDEL', KEYS[1], 'w', 'c', 'q')
local woken, all = wake_parked(KEYS[1], #ARGV > 0 and ARGV or parked_queues(KEYS[1]), MOST_WOKEN)
if not all then return woken > 0 and 2 or 0 end
-- A key that has expired names no queues any more.
if #ARGV > 0 then redis.call('SREM', KEYS[2], KEYS[1]) end
return 1
