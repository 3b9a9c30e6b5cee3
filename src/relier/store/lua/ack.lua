#!lua flags=allow-oom
-- ack: all that follows from a committed task was accepted; end its claim. The next generation of the same
--      task (retry, replace), or its dead letter, comes into being in the same step.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 record (hash)  4 events (stream)  5 list (base name)  6 scheduled (zset)
--       7 bell (zset)  8 dead (zset)  9 dead letter (hash)
-- ARGV  1 worker  2 claim  3 task id  4 'ended' | 'dead' | 'next'  5 record ttl ms; then
--       dead: 6 field, value, ... of the letter
--       next: 6 token  7 generation  8 list suffix  9 delay ms  10 raw message  11 queue
-- returns 1 ended, 0 the claim is gone: ended before, or in other hands that will send again
--@include clock
--@include event
--@include parcel
--@include worker
local worker, n, id, final = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], n, 'o:' .. n)
if not mine[2] then return 0 end

local now_ms = now_us() / 1000
local r = redis.call('HMGET', KEYS[3], 's', 'g')
-- A later generation may already be on its way (a chord body that took over the id): it keeps the record.
local current = r[1] == 'c' or not r[1]
if final == 'next' then
  local generation, delay_ms = ARGV[7], tonumber(ARGV[9])
  expect(KEYS[5] .. ARGV[8], 'list')
  expect(KEYS[6], 'zset')
  if redis.call('HSETNX', KEYS[3], 't:' .. ARGV[6], generation) == 1 then
    if current then redis.call('HSET', KEYS[3], 's', 'q', 'g', generation, 'q', ARGV[11]) end
    redis.call('PEXPIRE', KEYS[3], int(tonumber(ARGV[5]) + delay_ms))
    if delay_ms > 0 then
      redis.call('HSET', KEYS[3], 'due', int(now_ms + delay_ms))
      redis.call('ZADD', KEYS[6], int(now_ms + delay_ms), ARGV[8] .. '|' .. ARGV[10])
    else
      redis.call('LPUSH', KEYS[5] .. ARGV[8], ARGV[10])
    end
    ring(KEYS[7])
  end
elseif final == 'dead' then
  expect(KEYS[8], 'zset')
  redis.call('ZADD', KEYS[8], int(now_ms), id)
  redis.call('HSET', KEYS[9], 'parcel', mine[1], 'at_ms', int(now_ms), unpack(ARGV, 6))
  if current then redis.call('HSET', KEYS[3], 's', 'd') end
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
else
  if current then
    redis.call('HSET', KEYS[3], 's', 'e')
    redis.call('PEXPIRE', KEYS[3], ARGV[5])
  end
end
redis.call('HDEL', KEYS[2], n, 's:' .. n, 'o:' .. n)
event(KEYS[4], final, id, worker, n, '')
return 1
