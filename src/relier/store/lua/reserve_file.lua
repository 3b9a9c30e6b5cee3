#!lua flags=allow-oom
-- reserve_file: announce the file of a checkpoint before it is written. What is in the folder and was not announced is
--               nobody's, so that a sweep needs no guess about files that are just being written.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 record (hash)  4 files (hash)
-- ARGV  1 claim  2 name of the file  3 name of the folder of this server's files, if it has none yet
-- returns the name of that folder, or '' stale: nothing was changed
--@include clock
--@include worker
local n = ARGV[1]
if not alive(KEYS[1]) then return '' end
local mine = redis.call('HMGET', KEYS[2], 's:' .. n, 'o:' .. n)
if not mine[1] or mine[2] then return '' end
redis.call('HSETNX', KEYS[4], 'home', ARGV[3])
redis.call('HSETNX', KEYS[4], ARGV[2], int(now_us() / 1000) .. '|' .. KEYS[3])
return redis.call('HGET', KEYS[4], 'home')
