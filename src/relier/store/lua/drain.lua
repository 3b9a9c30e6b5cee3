#!lua flags=allow-oom
-- drain: order a worker to drain; its next beat brings the order back.
-- KEYS  1 worker entry (hash)
-- ARGV  1 '<id of the order>|<ms that its running tasks may take, or nothing: its own setting>', and '|restart' when it is to
--       begin anew then  2 1 when it is
-- returns 1 ordered, 0 there is no such worker, it is being reaped, or it cannot begin anew
--@include worker
if not alive(KEYS[1]) then return 0 end
if ARGV[2] == '1' and redis.call('HGET', KEYS[1], 'restarts') ~= 'yes' then return 0 end
redis.call('HSET', KEYS[1], 'drain', ARGV[1])
return 1
