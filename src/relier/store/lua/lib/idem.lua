-- An idempotency key (hash): while it is owned w, c, q (worker, claim and queue of its owner); once done v (the result);
-- and p:<queue> for each queue of which duplicates are parked. A duplicate is parked in the list beside it, as a parcel.
-- The lock lives exactly as long as its owner's claim runs, whose field k:<claim> names the key.
local MOST_WOKEN = 500

local function parked_list(idem, queue)
  local prefix, name = string.match(idem, '^(.-)rl:idem:(.*)$')
  return prefix .. 'rl:{' .. queue .. '}:parked:' .. name, prefix
end

local function is_owned(idem, worker, n, queue)
  if not worker then return false end
  local _, prefix = parked_list(idem, queue)
  local running = redis.call('HMGET', prefix .. 'rl:{' .. queue .. '}:claims:' .. worker, 's:' .. n, 'o:' .. n)
  return running[1] and not running[2]
end

-- Whoever wakes others is in the middle of a move of its own: a list of another type must not stop that.
local function takes_all(base, parcels)
  for _, parcel in ipairs(parcels) do
    if misfit(base .. string.match(parcel, '^[^|]*'), 'list') then return false end
  end
  return true
end

-- Put parked duplicates of these queues back to the heads of their lists, the oldest first; true when none are left.
local function wake_parked(idem, queues)
  local room, all = MOST_WOKEN, true
  for _, queue in ipairs(queues) do
    local list, prefix = parked_list(idem, queue)
    local parcels = room > 0 and not misfit(list, 'list') and redis.call('LRANGE', list, 0, room - 1) or {}
    if not takes_all(prefix .. queue, parcels) then parcels = {} end
    for i = #parcels, 1, -1 do to_head(prefix .. queue, prefix .. 'rl:{' .. queue .. '}:bell', parcels[i]) end
    if #parcels > 0 then redis.call('LTRIM', list, #parcels, -1) end
    room = room - #parcels
    if redis.call('EXISTS', list) == 1 then all = false else redis.call('HDEL', idem, 'p:' .. queue) end
  end
  return all
end

local function parked_queues(idem)
  local queues = {}
  for _, field in ipairs(redis.call('HKEYS', idem)) do
    if string.sub(field, 1, 2) == 'p:' then queues[#queues + 1] = string.sub(field, 3) end
  end
  return queues
end

-- End the ownership of a key by a claim, with a result or without one, and wake who waits for it.
local function let_go(idem, worker, n, value, ttl_ms)
  if misfit(idem, 'hash') then return end
  local owner = redis.call('HMGET', idem, 'w', 'c')
  if owner[1] == worker and owner[2] == n then
    redis.call('HDEL', idem, 'w', 'c', 'q')
    if value ~= '' then
      redis.call('HSET', idem, 'v', value)
      redis.call('PEXPIRE', idem, ttl_ms)
    end
  end
  wake_parked(idem, parked_queues(idem))
end
