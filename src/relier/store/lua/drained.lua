#!lua flags=allow-oom
-- drained: a worker says what became of all that it held when it stopped claiming; its last event.
-- KEYS  1 worker entry (hash)  2 events (stream)
-- ARGV  1 worker  2 '<completed>|<handed over>|<given back>|<neither>'
-- returns 1 said (also when asked again), 0 there is no such worker, or it is being reaped
--@include event
--@include worker
if not alive(KEYS[1]) then return 0 end
if redis.call('HSETNX', KEYS[1], 'drained', ARGV[2]) == 1 then event(KEYS[2], 'drained', '', ARGV[1], '', ARGV[2]) end
return 1
