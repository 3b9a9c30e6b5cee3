-- An idempotency key (hash): while it is owned w, c, q (worker, claim and queue of its owner); once done v (the result);
-- and p:<queue> for each queue of which duplicates are parked. A duplicate is parked in the list beside it, as a parcel.
-- The lock lives exactly as long as its owner's claim runs, whose field k:<claim> names the key.
local MOST_WOKEN, MOST_WOKEN_BYTES = 500, 1000000

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

-- Put parcels to the heads of their lists, the oldest first. Whoever wakes others is in the middle of a move of its own: a
-- list of another type must not stop that. False: none of them could go.
local function all_to_head(base, bell, parcels)
  local raws = {}
  for i = #parcels, 1, -1 do
    local suffix, raw = unwrap(parcels[i])
    raws[suffix] = raws[suffix] or {}
    table.insert(raws[suffix], raw)
  end
  for suffix in pairs(raws) do
    if misfit(base .. suffix, 'list') then return false end
  end
  for suffix, of_list in pairs(raws) do redis.call('RPUSH', base .. suffix, unpack(of_list)) end
  ring(bell)
  return true
end

-- The oldest that wait in a list, as many as may be moved at once, and how much room each takes: a large one that of
-- several. Calls with one key are of one size, more or less.
local function oldest(list, room)
  local first = room > 0 and not misfit(list, 'list') and redis.call('LINDEX', list, 0)
  if not first then return {} end
  local each = math.max(#first * MOST_WOKEN / MOST_WOKEN_BYTES, 1)
  return redis.call('LRANGE', list, 0, math.max(math.floor(room / each), 1) - 1), each
end

-- Put parked duplicates of these queues back, as far as there is room; how many, whether none are left, and the room then.
local function wake_parked(idem, queues, room)
  local woken, all = 0, true
  for _, queue in ipairs(queues) do
    local list, prefix = parked_list(idem, queue)
    local parcels, each = oldest(list, room)
    if #parcels > 0 and all_to_head(prefix .. queue, prefix .. 'rl:{' .. queue .. '}:bell', parcels) then
      redis.call('LTRIM', list, #parcels, -1)
      woken, room = woken + #parcels, room - #parcels * each
    end
    if redis.call('EXISTS', list) == 1 then all = false else redis.call('HDEL', idem, 'p:' .. queue) end
  end
  return woken, all, room
end

local function parked_queues(idem)
  local queues = {}
  for _, field in ipairs(redis.call('HKEYS', idem)) do
    if string.sub(field, 1, 2) == 'p:' then queues[#queues + 1] = string.sub(field, 3) end
  end
  return queues
end

-- What one script may wake, of however many keys it lets go: the sweep wakes the rest.
local wake_room = MOST_WOKEN

-- End the ownership of a key by a claim, with a result or without one, and wake who waits for it; false: more of them
-- wait than one script wakes.
local function let_go(idem, worker, n, value, ttl_ms)
  if misfit(idem, 'hash') then return true end
  local owner = redis.call('HMGET', idem, 'w', 'c')
  if owner[1] == worker and owner[2] == n then
    redis.call('HDEL', idem, 'w', 'c', 'q')
    if value ~= '' then
      redis.call('HSET', idem, 'v', value)
      redis.call('PEXPIRE', idem, ttl_ms)
    end
  end
  local _, all, room = wake_parked(idem, parked_queues(idem), wake_room)
  wake_room = room
  return all
end
