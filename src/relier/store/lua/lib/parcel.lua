-- A parcel is "<list suffix>|<raw message>": it knows which priority list it came from.
local function unwrap(parcel)
  local bar = string.find(parcel, '|', 1, true)
  return string.sub(parcel, 1, bar - 1), string.sub(parcel, bar + 1)
end

-- One marker in the bell wakes one worker that waits for this queue. It is a hint: a key of another type in its place
-- must not stop a move half way.
local function ring(bell)
  redis.pcall('ZADD', bell, 0, 'b')
end

-- Put a parcel back at the head of its list (claim pops from the right).
local function to_head(list, bell, parcel)
  local suffix, raw = unwrap(parcel)
  redis.call('RPUSH', list .. suffix, raw)
  ring(bell)
end

-- What is wrong with a key that should hold this kind, or nil.
local function misfit(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then
    return 'WRONGTYPE relier needs a ' .. kind .. ' at ' .. key .. ', found a ' .. found
  end
end

-- Refuse to write beside a key of another type: an error after half the writes would lose a message.
local function expect(key, kind)
  local wrong = misfit(key, kind)
  if wrong then error({err = wrong}) end
end
