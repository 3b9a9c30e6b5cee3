#!lua flags=allow-oom
-- terminate: order the worker that runs a task to stop it; its beats bring the order back until it was carried out.
-- KEYS  1 record (hash)  2 worker entry (hash)
-- ARGV  1 worker  2 claim  3 queue, as the record names them
-- returns 1 ordered (also when asked again), 0 it does not run under this claim any more, or its worker is being reaped,
--         -1 its worker does not announce (field stops) that it follows such orders: its relier is too old
--@include worker
local r = redis.call('HMGET', KEYS[1], 's', 'w', 'c', 'q')
if r[1] ~= 'r' or r[2] ~= ARGV[1] or r[3] ~= ARGV[2] or r[4] ~= ARGV[3] or not alive(KEYS[2]) then return 0 end
if redis.call('HEXISTS', KEYS[2], 'stops') == 0 then return -1 end
local orders, tag = redis.call('HGET', KEYS[2], 'stop') or '', ARGV[2] .. '@' .. ARGV[3]
for line in string.gmatch(orders, '[^\n]+') do
  if line == tag then return 1 end
end
redis.call('HSET', KEYS[2], 'stop', orders .. tag .. '\n')
return 1
