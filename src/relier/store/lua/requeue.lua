#!lua flags=allow-oom
-- requeue: a consumer puts one claim that did not start back at the tail of its list, behind what waits there.
-- KEYS  1 worker entry (hash)  2 list (base name)  3 claims (hash)  4 bell (zset)
-- ARGV  1 claim
-- returns 1, or 0 when the claim is gone or has started
--@include parcel
--@include worker
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[3], ARGV[1], 's:' .. ARGV[1], 'o:' .. ARGV[1])
if not mine[1] or mine[2] or mine[3] then return 0 end
local suffix, raw = unwrap(mine[1])
redis.call('LPUSH', KEYS[2] .. suffix, raw)
ring(KEYS[4])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
