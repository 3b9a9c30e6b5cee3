-- A record's life: which one it is (l, counted from 1), its root token (rt), its generation (g), and for every token
-- of every life "<life>:<generation>". Tokens outlive a life: a publish that is repeated late must not run again.
local MOST_TOKENS, LIVES_KEPT, GENERATIONS_KEPT = 200, 20, 20

local function remember(record, token, life, generation)
  redis.call('HSET', record, 't:' .. token, life .. ':' .. generation)
end

-- What a token says: its life and generation, or nil when it is unknown.
local function recall(value)
  if not value then return nil end
  local life, generation = string.match(value, '^(%d+):(%-?%d+)$')
  return life, tonumber(generation)
end

-- An id that is dispatched or retried again and again would gather tokens for ever: forget those of long ago, but the
-- life's first, which its parent may send again for as long as it waits.
local function forget_old(record, life, generation)
  if redis.call('HLEN', record) <= MOST_TOKENS then return end
  local fields, root = redis.call('HGETALL', record), 't:' .. (redis.call('HGET', record, 'rt') or '')
  for i = 1, #fields, 2 do
    local of_life, of_generation = recall(string.sub(fields[i], 1, 2) == 't:' and fields[i + 1])
    if of_life and fields[i] ~= root and (tonumber(of_life) < life - LIVES_KEPT
      or tonumber(of_life) == life and of_generation < generation - GENERATIONS_KEPT) then
      redis.call('HDEL', record, fields[i])
    end
  end
end

-- Begin a life: `before` is the number of the last one, or false when there is no record.
local function new_life(record, before, token, generation, name, queue, now)
  local life = 1
  if before then
    life = tonumber(before) + 1
    redis.call('HDEL', record, 'a', 'b', 'i', 'm', 'om', 'w', 'c', 'st', 'due', 'ex', 'el', 'u', 'k', 'ks', 'y', 'x', 'cp', 'cd', 'f', 'h')
    forget_old(record, life, tonumber(generation))
  end
  redis.call('HSET', record, 'n', name, 'q', queue, 's', 'q', 'g', generation, 'l', life, 'rt', token, 'at', now,
    't:' .. token, life .. ':' .. generation)
  return life
end

-- A later generation will have a due time of its own: keep from when the task's caller waits (f).
local function keep_first_due(record)
  local r = redis.call('HMGET', record, 'due', 'at')
  if r[1] or r[2] then redis.call('HSETNX', record, 'f', r[1] or r[2]) end
end

-- Late repeats are recognised for as long as the record lasts. What was derived from a parent may be sent again for
-- as long as the parent's outcome waits, so it is remembered longer.
local function rest(record, root, ttl_ms)
  if string.sub(root or '', 1, 2) == 'c-' then ttl_ms = ttl_ms * 24 end
  redis.call('PEXPIRE', record, ttl_ms)
end

-- End a task by a message that will never start; an old copy says nothing about the generation that waits now.
local function end_unstarted(record, token, state)
  local r = redis.call('HMGET', record, 's', 'l', 'g', 't:' .. token)
  local life, generation = recall(r[4])
  if r[1] == 'q' and life == r[2] and generation == tonumber(r[3]) then
    redis.call('HSET', record, 's', state)
    return true
  end
  return false
end
