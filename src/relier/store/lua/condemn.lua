#!lua flags=allow-oom
-- condemn: commit a failure for a started task whose process was stopped (hard timeout), unless it committed itself.
--          What follows from the failure is sent by whoever claims it from the replay list.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 record (hash)  4 events (stream)  5 replay (list)  6 bell (zset)
-- ARGV  1 worker  2 claim  3 task id  4 reason  5 outcome  6 state (FAILURE, or REVOKED)
-- returns 1 condemned, 0 not ours, not started, or committed already
--@include clock
--@include event
--@include history
--@include parcel
--@include replay
--@include idem
--@include counter
--@include tally
--@include worker
local n, outcome = ARGV[2], ARGV[5]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], n, 's:' .. n, 'o:' .. n, 'k:' .. n)
if not mine[2] or mine[3] then return 0 end
local r = redis.call('HMGET', KEYS[3], 'g', 'rt', 'n', 'at', 'due', 'f')
redis.call('RPUSH', KEYS[5], replay_element('0', r[1] or '0', r[2] or '', outcome, mine[1]))
redis.call('HDEL', KEYS[2], n, 's:' .. n, 'k:' .. n)
if mine[4] then let_go(mine[4], ARGV[1], n, '', '') end
if r[1] then redis.call('HSET', KEYS[3], 's', 'c', 'c', '') end
redis.call('HINCRBY', KEYS[1], counter(ARGV[6]), 1)
ring(KEYS[6])
local at = note(KEYS[3], KEYS[1], KEYS[4], 'condemned', ARGV[3], ARGV[1], n, ARGV[4], run_of(mine[2]))
tally_end(KEYS[4], at, ARGV[6], r, 3)
return 1
