#!lua flags=allow-oom
-- bury: a message that cannot be run goes to the dead letters as it came, with the reason.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 dead (zset)  4 dead letter (hash)  5 events (stream)
-- ARGV  1 worker  2 claim  3 id of the letter; then field, value, ... (reason, error, name)
-- returns 1 buried, 0 not ours, or started
--@include clock
--@include event
--@include parcel
--@include worker
local n, id = ARGV[2], ARGV[3]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], n, 's:' .. n, 'o:' .. n)
if not mine[1] or mine[2] or mine[3] then return 0 end
expect(KEYS[3], 'zset')
local now_ms = int(now_us() / 1000)
redis.call('ZADD', KEYS[3], now_ms, id)
redis.call('HSET', KEYS[4], 'parcel', mine[1], 'at_ms', now_ms, unpack(ARGV, 4))
redis.call('HDEL', KEYS[2], n)
event(KEYS[5], 'dead', id, ARGV[1], n, ARGV[5])
return 1
