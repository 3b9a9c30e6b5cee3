#!lua flags=allow-oom
-- purge_letters: remove dead letters for good; the results of their tasks stay. Asked again with the same receipt, it says the same.
-- KEYS  1 dead (zset)  2 events (stream)  3 checkpoint files (hash)  4 receipt (string); then each letter (hash)
-- ARGV  1 why  2 how many letters the queue is to keep (0: it does not matter)  3 for how long the receipt is kept, ms;
--       4 fingerprint that they are listed under, or ''; then for each letter: its id, its time of death
-- returns "<removed> <place> ...": the places of their checkpoints' files, which nobody needs from now on
--@include clock
--@include event
--@include parcel
--@include letter
local told = redis.call('GET', KEYS[4])
if told then return told end
expect(KEYS[1], 'zset')
expect(KEYS[3], 'hash')
local removed, places = 0, {}

local function strike_out(letter)
  local saved = redis.call('HGET', letter, 'cp') or ''
  local place, name = string.match(saved, '|([^|]+/([^/|]+))$')
  local holder = name and redis.call('HGET', KEYS[3], name)
  if holder and string.sub(holder, -#letter - 1) == '|' .. letter then
    redis.call('HDEL', KEYS[3], name)
    places[#places + 1] = place
  end
end

for k = 5, #KEYS do
  if ARGV[2] ~= '0' and redis.call('ZCARD', KEYS[1]) <= tonumber(ARGV[2]) then break end
  local letter, id, at_ms = KEYS[k], ARGV[2 * k - 5], ARGV[2 * k - 4]
  local died_ms = redis.call('ZSCORE', KEYS[1], id)
  -- By now it may have been released, and its name be that of a later one.
  if died_ms and int(tonumber(died_ms)) == at_ms and not misfit(letter, 'hash') then
    strike_out(letter)
    drop_letter(KEYS[1], letter, id)
    event(KEYS[2], 'removed', id, '', '', ARGV[1])
    removed = removed + 1
  elseif not died_ms and ARGV[4] ~= '' then
    -- An older relier, which knew of no index, released it.
    reindex(KEYS[1], ARGV[4], 'ZREM', id)
  end
end
local said = table.concat({removed, unpack(places)}, ' ')
redis.call('SET', KEYS[4], said, 'PX', ARGV[3])
return said
