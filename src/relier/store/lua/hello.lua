#!lua flags=allow-oom
-- hello: create a worker's entry. Worker ids are random and never used twice, so a repeat is the same call.
-- KEYS  1 worker entry (hash)  2 workers (set)
-- ARGV  1 worker id; then field, value, ... for the entry (epoch among them)
-- returns 1
--@include clock
--@include parcel
expect(KEYS[2], 'set')
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'started_ms', int(now_us() / 1000), unpack(ARGV, 2))
end
redis.call('SADD', KEYS[2], ARGV[1])
return 1
