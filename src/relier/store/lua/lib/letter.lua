-- Dead letters: dead (zset) has their ids by time of death, dead:<id> (hash) each letter. Those of one error have one
-- fingerprint (field fp): group:<fp> (zset) has their ids by time of death, groups (zset) how many each group has.
local function reindex(dead, fp, change, ...)
  local base = string.sub(dead, 1, -5)
  local groups, group = base .. 'groups', base .. 'group:' .. fp
  -- It is an index: what is wrong with its keys must not keep a letter from being written, or released.
  if misfit(groups, 'zset') or misfit(group, 'zset') then return end
  redis.call(change, group, ...)
  local count = redis.call('ZCARD', group)
  if count > 0 then redis.call('ZADD', groups, int(count), fp) else redis.call('ZREM', groups, fp) end
end

-- Put a message into the dead letters. A letter of an earlier life of the same id stays: the later one takes another
-- name. Returns the letter's id and its key.
local function to_dead(dead, letter, id, unique, parcel, now, fields)
  if redis.call('EXISTS', letter) == 1 then
    id, letter = id .. '~' .. unique, letter .. '~' .. unique
  end
  redis.call('ZADD', dead, now, id)
  redis.call('HSET', letter, 'parcel', parcel, 'at_ms', now, unpack(fields))
  local fp = redis.call('HGET', letter, 'fp')
  if fp then reindex(dead, fp, 'ZADD', now, id) end
  return id, letter
end

-- Take a letter away; its bytes have gone elsewhere, or are to be gone.
local function drop_letter(dead, letter, id)
  local fp = redis.call('HGET', letter, 'fp')
  redis.call('ZREM', dead, id)
  redis.call('UNLINK', letter)
  if fp then reindex(dead, fp, 'ZREM', id) end
end

-- How often the life ran and came back: its record forgets that when the next one begins.
local function note_runs(record, letter)
  local r = redis.call('HMGET', record, 'a', 'b', 'i', 'l')
  redis.call('HSET', letter, 'runs', r[1] or 0, 'deaths', r[2] or 0, 'interruptions', r[3] or 0, 'life', r[4] or 1)
end
