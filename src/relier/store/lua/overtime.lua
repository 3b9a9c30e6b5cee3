#!lua flags=allow-oom
-- overtime: write down that a running task is over its soft timeout. Nothing moves.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 events (stream)
-- ARGV  1 worker  2 claim  3 task id  4 the timeout in words
-- returns 1 written, 0 the task does not run under this claim any more
--@include event
--@include worker
local n = ARGV[2]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], 's:' .. n, 'o:' .. n)
if not mine[1] or mine[2] then return 0 end
event(KEYS[3], 'overtime', ARGV[3], ARGV[1], n, ARGV[4], run_of(mine[1]))
return 1
