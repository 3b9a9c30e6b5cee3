#!lua flags=allow-oom
-- unlock: leave a guarded block, with a result or without one.
-- KEYS  1 lock (hash)  2 entry of the worker in which the task runs (hash; only in a task)
-- ARGV  1 token of this use  2 result or ''  3 for how long it is kept, ms
-- returns 1 left (also when asked again), 0 it was not ours any more: nothing was changed
--@include worker
local REMEMBERED_MS = 60000
local lock = redis.call('HMGET', KEYS[1], 'v', 't', 'claims', 'c', 'left')
if lock[5] == ARGV[1] then return 1 end
if lock[2] ~= ARGV[1] then return 0 end
if lock[1] then return 1 end
if lock[3] and lock[3] ~= '' then
  local running = redis.call('HMGET', lock[3], 's:' .. lock[4], 'o:' .. lock[4])
  if not alive(KEYS[2]) or not running[1] or running[2] then return 0 end
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], 't', 'claims', 'c', 'until')
  redis.call('HSET', KEYS[1], 'left', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], REMEMBERED_MS)
else
  -- The token stays: it tells a repeated call that it was done.
  redis.call('HDEL', KEYS[1], 'claims', 'c', 'until')
  redis.call('HSET', KEYS[1], 'v', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
