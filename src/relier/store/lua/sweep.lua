#!lua flags=allow-oom
-- sweep: wake duplicates that are parked behind an idempotency key which nobody owns any more. Whatever ends or moves an
--        owner's claim wakes them; this is the net below it.
-- KEYS  1 idempotency key (hash)  2 index of keys with parked duplicates (set)
-- ARGV  queues
-- returns 1 nobody is parked there any more, 0 its owner runs, or some are left
--@include parcel
--@include idem
expect(KEYS[2], 'set')
local owner = redis.call('HMGET', KEYS[1], 'w', 'c', 'q')
if is_owned(KEYS[1], owner[1], owner[2], owner[3]) then return 0 end
redis.call('HDEL', KEYS[1], 'w', 'c', 'q')
if not wake_parked(KEYS[1], ARGV) then return 0 end
redis.call('SREM', KEYS[2], KEYS[1])
return 1
