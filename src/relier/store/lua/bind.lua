#!lua flags=allow-oom
-- bind: write a queue's binding as kombu does, on a server that has no room for more. Workers empty a full server: none
--       may be kept from starting by a few bytes.
-- KEYS  1 the exchange's bindings (set)  2 those that stay (set), or else the deadlines of all tables (zset)
-- ARGV  1 binding  2 exchange  3 ms for which it is good, or '' for one that stays
-- returns 1
--@include clock
--@include parcel
expect(KEYS[1], 'set')
if ARGV[3] == '' then
  expect(KEYS[2], 'set')
  redis.call('SADD', KEYS[2], ARGV[1])
else
  expect(KEYS[2], 'zset')
  redis.call('ZADD', KEYS[2], 'GT', int(now_us() / 1000 + tonumber(ARGV[3])), ARGV[2])
end
redis.call('SADD', KEYS[1], ARGV[1])
return 1
