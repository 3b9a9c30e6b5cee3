#!lua flags=allow-oom
-- revoke: leave word that a task is not to run. Whoever starts it next, from its queue, its schedule or its retry, commits
--         REVOKED in place of its body. One that runs goes on; one that has ended may be dispatched again.
-- KEYS  1 record (hash)
-- ARGV  1 ttl ms of a record that this makes: the task may yet come, or be a stock producer's
-- returns 1 noted, 0 it had ended
--@include clock
--@include event
--@include history
local r = redis.call('HMGET', KEYS[1], 's', 'x', 'q')
local state = r[1]
if state == 'e' or state == 'd' then return 0 end
redis.call('HSET', KEYS[1], 'x', '1')
if r[3] and not r[2] then keep(KEYS[1], '', '', 'rl:{' .. r[3] .. '}:events', 'cancelled', '', '', '') end
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
