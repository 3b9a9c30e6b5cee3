#!lua flags=allow-oom
-- forget: let go of idempotency keys and locks that the dead left behind, and of results when that is asked for. What a
--         living task or block owns stays.
-- KEYS  idempotency keys (hash), or locks (hash)
-- ARGV  1 'idem' | 'lock'  2 'look' (change nothing) | 'orphans' | 'results' (orphans, too)
-- returns for each key what it is: 'owned', 'result', 'orphan', or '' (nothing to let go of)
--@include clock
--@include parcel
--@include idem
local kind, order = ARGV[1], ARGV[2]
local now_ms = now_us() / 1000

local function idem_is(key)
  local f = redis.call('HMGET', key, 'v', 'w', 'c', 'q')
  if f[1] then
    -- Calls that wait for a result and cannot all be woken now are owed it.
    if order == 'results' and not wake_parked(key, parked_queues(key)) then return 'owned' end
    if order == 'results' then redis.call('DEL', key) end
    return 'result'
  end
  if is_owned(key, f[2], f[3], f[4]) then return 'owned' end
  if not f[2] then return '' end
  if order ~= 'look' then
    redis.call('HDEL', key, 'w', 'c', 'q')
    wake_parked(key, parked_queues(key))
  end
  return 'orphan'
end

local function lock_is(key)
  local f = redis.call('HMGET', key, 'v', 't', 'claims', 'c', 'until')
  if f[1] then
    if order == 'results' then redis.call('DEL', key) end
    return 'result'
  end
  if not f[2] then return '' end
  if f[3] and f[3] ~= '' then
    local running = redis.call('HMGET', f[3], 's:' .. f[4], 'o:' .. f[4])
    if running[1] and not running[2] then return 'owned' end
  elseif tonumber(f[5] or 0) > now_ms then
    return 'owned'
  end
  if order ~= 'look' then redis.call('DEL', key) end
  return 'orphan'
end

local found = {}
for i, key in ipairs(KEYS) do
  found[i] = misfit(key, 'hash') and '' or (kind == 'lock' and lock_is or idem_is)(key)
end
return found
