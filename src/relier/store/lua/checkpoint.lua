#!lua flags=allow-oom
-- checkpoint: keep what a running task has done so far, for an attempt that may follow. A checkpoint is numbered within
--             its claim: one that is asked again, or comes late, never takes the place of a later one.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 record (hash)  4 files (hash)
-- ARGV  1 claim  2 number under this claim, from 1  3 record ttl ms  4 bytes of the state
--       5 place: 'inline', or '<backend>:<home>/<name>'  6 the state when inline, else ''
-- returns 1 kept (also when asked again), 0 stale: nothing was changed, -1 the file was not reserved, or too long ago
--@include clock
--@include checkpoint
--@include worker
local n, number, place = ARGV[1], ARGV[2], ARGV[5]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], 's:' .. n, 'o:' .. n)
if not mine[1] or mine[2] then return 0 end

local fence = string.match(mine[1], '^(%d+)|')
local r = redis.call('HMGET', KEYS[3], 'l', 'g', 'cp')
local last_fence, last_number = string.match(r[3] or '', '^%-?%d+|(%d+)|(%d+)|')
if last_fence == fence and tonumber(last_number) >= tonumber(number) then return 1 end
local name = string.match(place, '/([^/|]+)$')
if name and redis.call('HEXISTS', KEYS[4], name) == 0 then return -1 end

-- A task that ran for longer than its record lasts begins a new one; the next life must know that it is not the first.
if not r[1] then redis.call('HSET', KEYS[3], 'l', 1) end
redis.call('HSET', KEYS[3], 'cp',
  table.concat({replacements(r[2]), fence, number, int(now_us() / 1000), ARGV[4], place}, '|'))
if name then
  redis.call('HDEL', KEYS[3], 'cd')
else
  redis.call('HSET', KEYS[3], 'cd', ARGV[6])
end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
