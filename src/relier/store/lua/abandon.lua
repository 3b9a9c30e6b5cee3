#!lua flags=allow-oom
-- abandon: what follows from a committed task could not be sent; hand it to whoever claims it next.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 replay (list)  4 bell (zset)  5 events (stream)  6 record (hash)
-- ARGV  1 worker  2 claim  3 task id  4 reason  5 '1' if sending was tried, '0' if this process cannot even try
-- returns 1 handed over, 0 not ours
--@include clock
--@include event
--@include history
--@include parcel
--@include replay
--@include worker
local n = ARGV[2]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], n, 'o:' .. n, 's:' .. n)
if not mine[2] then return 0 end
local replays, generation, root, outcome = committed(mine[2])
redis.call('LPUSH', KEYS[3], replay_element(int(tonumber(replays) + tonumber(ARGV[5])), generation, root, outcome, mine[1]))
redis.call('HDEL', KEYS[2], n, 's:' .. n, 'o:' .. n)
ring(KEYS[4])
note(KEYS[6], KEYS[1], KEYS[5], 'replay', ARGV[3], ARGV[1], n, ARGV[4], run_of(mine[3]))
return 1
