#!lua flags=allow-oom
-- hasten: make a scheduled message due now.
-- KEYS  1 scheduled (zset)  2 bell (zset)  3 events (stream)
-- ARGV  1 parcel  2 task id
-- returns 1 it is due now (also when asked again), 0 it is not in the schedule any more
--@include clock
--@include event
--@include parcel
expect(KEYS[1], 'zset')
local due_ms, now_ms = redis.call('ZSCORE', KEYS[1], ARGV[1]), now_us() / 1000
if not due_ms then return 0 end
if tonumber(due_ms) > now_ms then
  redis.call('ZADD', KEYS[1], 'XX', int(now_ms), ARGV[1])
  event(KEYS[3], 'hastened', ARGV[2], '', '', '')
end
ring(KEYS[2])
return 1
