#!lua flags=allow-oom
-- lock: ask for a key that guards a block of code, or keep it for longer. Asked again by its owner, it says the same.
-- KEYS  1 lock (hash)  2 entry of the worker in which the task runs (hash; only in a task)
-- ARGV  1 token of this use  2 lease ms  3 claims under which the block runs (hash; its name is not in KEYS, as those of
--       other workers' claims), or '' outside a task  4 claim
-- returns {'mine'}; {'done', result}; {'busy', ms after which to ask again at the latest}; {'own'} this very task holds it;
--         {'stale'} the claim is not this process's any more, or this use of the lock has ended
--@include clock
--@include worker
local MOST_WAIT_MS, FORGOTTEN_MS = 1000, 30 * 24 * 3600 * 1000
local lock = redis.call('HMGET', KEYS[1], 'v', 't', 'claims', 'c', 'until', 'left')
if lock[1] then return {'done', lock[1]} end
-- A renewal that was under way when its block ended.
if lock[6] == ARGV[1] then return {'stale'} end
local now_ms = now_us() / 1000

-- A task's lock lives as long as its claim runs, another's until its lease ends.
local wait_ms = 0
if lock[2] and lock[2] ~= ARGV[1] then
  if lock[3] ~= '' then
    local running = redis.call('HMGET', lock[3], 's:' .. lock[4], 'o:' .. lock[4])
    if running[1] and not running[2] then
      if lock[3] == ARGV[3] and lock[4] == ARGV[4] then return {'own'} end
      wait_ms = MOST_WAIT_MS
    end
  else
    wait_ms = math.min(tonumber(lock[5]) - now_ms, MOST_WAIT_MS)
  end
end
if wait_ms > 0 then return {'busy', int(math.ceil(wait_ms))} end

if ARGV[3] ~= '' then
  local mine = redis.call('HMGET', ARGV[3], 's:' .. ARGV[4], 'o:' .. ARGV[4])
  if not alive(KEYS[2]) or not mine[1] or mine[2] then return {'stale'} end
end
redis.call('HSET', KEYS[1], 't', ARGV[1], 'claims', ARGV[3], 'c', ARGV[4], 'until', int(now_ms + tonumber(ARGV[2])))
-- A claim that ended took its lock with it; what is left of that is only litter.
redis.call('PEXPIRE', KEYS[1], ARGV[3] == '' and ARGV[2] or int(FORGOTTEN_MS))
return {'mine'}
