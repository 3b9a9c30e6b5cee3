#!lua flags=allow-oom
-- drain: order a worker to drain; its next beat brings the order back.
-- KEYS  1 worker entry (hash)
-- ARGV  1 '<id of the order>|<ms that its running tasks may take, or nothing: its own setting>'
-- returns 1 ordered, 0 there is no such worker, or it is being reaped
--@include worker
if not alive(KEYS[1]) then return 0 end
redis.call('HSET', KEYS[1], 'drain', ARGV[1])
return 1
