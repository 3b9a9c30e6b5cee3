-- A checkpoint is in the record of its task, or in its dead letter.
-- cp: "<replacements>|<fence>|<number>|<at ms>|<bytes>|<place>"; cd: the state itself when its place is 'inline'.
-- Any other place is "<backend>:<home>/<name>", a file: files (hash) says for each name "<since ms>|<key of the holder>".
local GENERATIONS = 4294967296

-- Retries go on with the same work; what replaced a task under its own id does other work.
local function replacements(generation)
  return int(math.floor(tonumber(generation or 0) / GENERATIONS))
end

local function drop_checkpoint(record)
  redis.call('HDEL', record, 'cp', 'cd')
end

-- Add to a reply what an earlier attempt saved: cp, and cd when it is inline.
local function hand_over(record, saved, generation, reply)
  if not saved then return reply end
  if string.match(saved, '^(%-?%d+)|') == replacements(generation) then
    reply[#reply + 1] = saved
    reply[#reply + 1] = redis.call('HGET', record, 'cd') or nil
  else
    drop_checkpoint(record)
  end
  return reply
end

local function move_checkpoint(from, to, files, now)
  local held = redis.call('HMGET', from, 'cp', 'cd')
  if not held[1] then return end
  redis.call('HSET', to, 'cp', held[1])
  if held[2] then redis.call('HSET', to, 'cd', held[2]) end
  drop_checkpoint(from)
  local name = string.match(held[1], '/([^/|]+)$')
  if name then redis.call('HSET', files, name, now .. '|' .. to) end
end
