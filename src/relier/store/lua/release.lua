#!lua flags=allow-oom
-- release: give claims that did not start back to the head of their queue; nothing is blamed.
-- KEYS  1 worker entry (hash)  2 list (base name)  3 claims (hash)  4 bell (zset)
-- ARGV  claims, youngest first, so that the oldest ends up at the head
-- returns how many were given back; started ones stay
--@include parcel
--@include worker
if not alive(KEYS[1]) then return 0 end
local returned = 0
for _, n in ipairs(ARGV) do
  local mine = redis.call('HMGET', KEYS[3], n, 's:' .. n, 'o:' .. n)
  if mine[1] and not mine[2] and not mine[3] then
    to_head(KEYS[2], KEYS[4], mine[1])
    redis.call('HDEL', KEYS[3], n)
    returned = returned + 1
  end
end
return returned
