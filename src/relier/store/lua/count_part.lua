#!lua flags=allow-oom
-- count_part: one part of a chord has ended; is the chord complete? Runs where Celery's results are, on the keys of
--             Celery's Redis backend. A part counts once, and whoever finds the chord complete may publish its body:
--             that has one id and one token, so two that publish it make one task.
-- KEYS  1 parts (zset, or list if unordered)  2 parts added later (string)  3 size (string)  4 who was counted (set)
--       5 lease on publishing (string)  6 the header's saved result (string)
-- ARGV  1 member of the set  2 part  3 'zset' | 'list'  4 score  5 ttl s (0: none)  6 ttl s of the saved result
--       7 our name on the lease  8 ttl s of the lease
-- returns 'done'      its body was published, and the chord closed
--         'counted'   others are missing
--         'complete'  publish the body, then close the chord
--         'taken'     complete, but a worker without relier is publishing; ask again later
--@include parcel
expect(KEYS[1], ARGV[3])
expect(KEYS[4], 'set')
if redis.call('GET', KEYS[5]) == 'done' then return 'done' end
local size, added = tonumber(redis.call('GET', KEYS[3]) or ''), tonumber(redis.call('GET', KEYS[2]) or 0)
-- What a failed use of the same chord left is not counted again.
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('DEL', KEYS[1]) end
if redis.call('SADD', KEYS[4], ARGV[1]) == 1 then
  if ARGV[3] == 'zset' then
    redis.call('ZADD', KEYS[1], ARGV[4], ARGV[2])
  else
    redis.call('RPUSH', KEYS[1], ARGV[2])
  end
end
if ARGV[5] ~= '0' then
  for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
  if ARGV[6] ~= '0' then redis.call('EXPIRE', KEYS[6], ARGV[6]) end
end

local count = redis.call(ARGV[3] == 'zset' and 'ZCARD' or 'LLEN', KEYS[1])
if not size or count ~= size + added then return 'counted' end
redis.call('SET', KEYS[5], ARGV[7], 'NX', 'EX', ARGV[8])
return redis.call('GET', KEYS[5]) == ARGV[7] and 'complete' or 'taken'
