#!lua flags=allow-oom
-- hello: create a worker's entry. Worker ids are random and never used twice, so a repeat is the same call.
-- KEYS  1 worker entry (hash)  2 workers (set)
-- ARGV  1 worker id; then field, value, ... for the entry (epoch among them)
-- returns 1
--@include parcel
expect(KEYS[2], 'set')
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 2))
end
redis.call('SADD', KEYS[2], ARGV[1])
return 1
