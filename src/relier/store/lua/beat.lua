#!lua flags=allow-oom
-- beat: say that a worker lives, and from which connection. Others watch the counter, never a timestamp.
-- KEYS  1 worker entry (hash)
-- ARGV  field, value, ... (run_id, client_id, addr, what people want to see)
-- returns {1 seen, 0 refused: no entry, or already being reaped; the process must go on under a new id,
--          the order to drain, or '', the claims to stop, a line each; these are given once}
--@include clock
--@include worker
if not alive(KEYS[1]) then return {0, '', ''} end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
redis.call('HSET', KEYS[1], 'seen', int(now_us() / 1000))
if #ARGV > 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
local orders = redis.call('HMGET', KEYS[1], 'drain', 'stop')
if orders[2] then redis.call('HDEL', KEYS[1], 'stop') end
return {1, orders[1] or '', orders[2] or ''}
