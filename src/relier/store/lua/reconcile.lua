#!lua flags=allow-oom
-- reconcile: raise the worker's epoch and give back every claim that it does not name and that no process of its
--            works under: unstarted ones to their queue, committed ones to the replay list. A claim whose reply was lost has no holder; from here on its bytes, however late, belong to an older epoch.
-- KEYS  1 worker entry (hash); then for each queue: list (base name), claims (hash), bell (zset), replay (list)
-- ARGV  1 epoch (the same or a higher one); then the claims the worker holds
-- returns claims given back; -1 refused: no entry, being reaped, or an older epoch
--@include parcel
--@include replay
--@include worker
if not alive(KEYS[1]) then return -1 end
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch'))
if tonumber(ARGV[1]) < epoch then return -1 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])

-- What cannot go back stays, for the next time, and keeps nobody else.
local function fits(k, mine)
  if mine[2] then return not misfit(KEYS[k + 3], 'list') end
  return not misfit(KEYS[k] .. unwrap(mine[1]), 'list')
end

local held = {}
for i = 2, #ARGV do held[ARGV[i]] = true end
local returned = 0
for k = 2, #KEYS, 4 do
  local fields = misfit(KEYS[k + 1], 'hash') and {} or redis.call('HKEYS', KEYS[k + 1])
  local present, numbers = {}, {}
  for _, f in ipairs(fields) do present[f] = true end
  for _, f in ipairs(fields) do
    if string.match(f, '^%d+$') and not held[f] and not present['s:' .. f] then
      numbers[#numbers + 1] = f
    end
  end
  table.sort(numbers, function(a, b) return tonumber(a) > tonumber(b) end)
  for _, n in ipairs(numbers) do
    local mine = redis.call('HMGET', KEYS[k + 1], n, 'o:' .. n)
    local goes = fits(k, mine)
    if goes and mine[2] then
      local replays, generation, root, outcome = committed(mine[2])
      redis.call('RPUSH', KEYS[k + 3], replay_element(replays, generation, root, outcome, mine[1]))
      ring(KEYS[k + 2])
    elseif goes then
      to_head(KEYS[k], KEYS[k + 2], mine[1])
    end
    if goes then
      redis.call('HDEL', KEYS[k + 1], n, 'o:' .. n)
      returned = returned + 1
    end
  end
end
return returned
