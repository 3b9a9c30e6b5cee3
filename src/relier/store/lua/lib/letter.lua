-- Put a message into the dead letters. A letter of an earlier life of the same id stays: the later one takes another
-- name. Returns the letter's id and its key.
local function to_dead(dead, letter, id, unique, parcel, now, fields)
  if redis.call('EXISTS', letter) == 1 then
    id, letter = id .. '~' .. unique, letter .. '~' .. unique
  end
  redis.call('ZADD', dead, now, id)
  redis.call('HSET', letter, 'parcel', parcel, 'at_ms', now, unpack(fields))
  return id, letter
end
