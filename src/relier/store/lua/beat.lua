#!lua flags=allow-oom
-- beat: say that a worker lives, and from which connection. Others watch the counter, never a timestamp.
-- KEYS  1 worker entry (hash)
-- ARGV  1 the claims, a line each, whose orders to stop were carried out, or are none of this worker's any more
--       2.. field, value, ... (run_id, client_id, addr, what people want to see)
-- returns {1 seen, 0 refused: no entry, or already being reaped; the process must go on under a new id,
--          the order to drain, or '', the claims to stop, a line each; each beat says them again until they are in ARGV 1}
--@include clock
--@include worker
if not alive(KEYS[1]) then return {0, '', ''} end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
redis.call('HSET', KEYS[1], 'seen', int(now_us() / 1000))
if #ARGV > 1 then redis.call('HSET', KEYS[1], unpack(ARGV, 2)) end
local orders = redis.call('HMGET', KEYS[1], 'drain', 'stop')
local stop, left = orders[2] or '', {}
if stop ~= '' and ARGV[1] ~= '' then
  for tag in string.gmatch(stop, '[^\n]+') do
    if not string.find('\n' .. ARGV[1] .. '\n', '\n' .. tag .. '\n', 1, true) then left[#left + 1] = tag .. '\n' end
  end
  stop = table.concat(left)
  if stop == '' then redis.call('HDEL', KEYS[1], 'stop') else redis.call('HSET', KEYS[1], 'stop', stop) end
end
return {1, orders[1] or '', stop}
