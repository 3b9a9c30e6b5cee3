#!lua flags=allow-oom
-- forget: let go of idempotency keys and locks that the dead left behind, and of results when that is asked for. What a
--         living task or block owns stays.
-- KEYS  idempotency keys (hash), or locks (hash)
-- ARGV  1 'idem' | 'lock'  2 'look' (change nothing) | 'orphans' | 'results' (orphans, too)
-- returns for each key what it is: 'owned' (or a result that calls wait for), 'result', 'orphan', '' (nothing to let go
--         of), or 'again': more wait for it than one call wakes, so ask again
--@include clock
--@include parcel
--@include idem
local kind, order = ARGV[1], ARGV[2]
local now_ms, room = now_us() / 1000, MOST_WOKEN

local function is_owed(key)
  for _, queue in ipairs(parked_queues(key)) do
    if redis.call('EXISTS', (parked_list(key, queue))) == 1 then return true end
  end
  return false
end

local function idem_is(key)
  local f = redis.call('HMGET', key, 'v', 'w', 'c', 'q')
  if f[1] then
    if is_owed(key) then return 'owned' end
    if order == 'results' then redis.call('DEL', key) end
    return 'result'
  end
  if is_owned(key, f[2], f[3], f[4]) then return 'owned' end
  if not f[2] then return '' end
  if order ~= 'look' then
    local had, woken, all = room
    woken, all, room = wake_parked(key, parked_queues(key), room)
    -- What cannot go back now, because of a key of another type, is left to the sweep.
    if not all and (woken > 0 or had <= 0) then return 'again' end
    redis.call('HDEL', key, 'w', 'c', 'q')
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
