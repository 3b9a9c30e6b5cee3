#!lua flags=allow-oom
-- reconcile: raise the worker's epoch and give back every unstarted claim it does not name. A claim whose reply
--            was lost has no holder; from here on its bytes, however late, belong to an older epoch.
-- KEYS  1 worker entry (hash); then for each queue: list (base name), claims (hash), bell (zset)
-- ARGV  1 epoch (the same or a higher one); then the claims the worker holds
-- returns claims given back; -1 refused: no entry, being reaped, or an older epoch
--@include parcel
--@include worker
if not alive(KEYS[1]) then return -1 end
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch'))
if tonumber(ARGV[1]) < epoch then return -1 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])

local held = {}
for i = 2, #ARGV do held[ARGV[i]] = true end
local returned = 0
for k = 2, #KEYS, 3 do
  local fields = redis.call('HKEYS', KEYS[k + 1])
  local present, numbers = {}, {}
  for _, f in ipairs(fields) do present[f] = true end
  for _, f in ipairs(fields) do
    if string.match(f, '^%d+$') and not held[f] and not present['s:' .. f] and not present['o:' .. f] then
      numbers[#numbers + 1] = f
    end
  end
  table.sort(numbers, function(a, b) return tonumber(a) > tonumber(b) end)
  for _, n in ipairs(numbers) do
    to_head(KEYS[k], KEYS[k + 2], redis.call('HGET', KEYS[k + 1], n))
    redis.call('HDEL', KEYS[k + 1], n)
    returned = returned + 1
  end
end
return returned
