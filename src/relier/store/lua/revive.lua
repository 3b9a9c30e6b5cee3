#!lua flags=allow-oom
-- revive: give a dead letter a new life in its queue. Two operators at once make one task.
-- KEYS  1 dead (zset)  2 dead letter (hash)  3 record (hash)  4 list (base name)  5 bell (zset)  6 events (stream)
-- ARGV  1 id  2 token (new; also the root of what follows)  3 generation  4 list suffix  5 raw message
--       6 record ttl ms  7 queue  8 task name
-- returns 1 released, 0 there is no such letter any more
--@include clock
--@include event
--@include parcel
expect(KEYS[4] .. ARGV[4], 'list')
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[3], 'n', ARGV[8], 'q', ARGV[7], 's', 'q', 'g', ARGV[3], 'rt', ARGV[2],
  't:' .. ARGV[2], ARGV[3], 'at', int(now_us() / 1000))
redis.call('PEXPIRE', KEYS[3], ARGV[6])
redis.call('LPUSH', KEYS[4] .. ARGV[4], ARGV[5])
ring(KEYS[5])
event(KEYS[6], 'released', ARGV[1], '', '', '')
return 1
