#!lua flags=allow-oom
-- defer: put a claim off that this worker cannot run but a newer one may; in the end it becomes a dead letter, or its
--        holder is told, who has something to do before it buries it.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 record (hash)  4 scheduled (zset)  5 dead (zset)  6 dead letter (hash)
--       7 events (stream)  8 checkpoint files (hash)
-- ARGV  1 worker  2 claim  3 task id  4 delay ms (0: back off 1, 2, 4 .. 32 s by the number of deferrals)
--       5 most deferrals  6 record ttl ms  7 token of the message  8 'bury', or 'tell' to leave that to the holder;
--       then field, value, ... of the dead letter (reason first)
-- returns 1 deferred, 2 buried, 3 put off often enough, and still claimed; 0 not ours, or started
--@include clock
--@include checkpoint
--@include event
--@include history
--@include life
--@include parcel
--@include letter
--@include tally
--@include worker
local n, id = ARGV[2], ARGV[3]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], n, 's:' .. n, 'o:' .. n)
if not mine[1] or mine[2] or mine[3] then return 0 end
expect(KEYS[4], 'zset')
expect(KEYS[5], 'zset')
expect(KEYS[8], 'hash')
local now_ms, delay_ms = now_us() / 1000, tonumber(ARGV[4])
local r = redis.call('HMGET', KEYS[3], 's', 'n')
local deferrals = redis.call('HINCRBY', KEYS[3], 'u', 1)
redis.call('PEXPIRE', KEYS[3], int(tonumber(ARGV[6]) + delay_ms))
if deferrals > tonumber(ARGV[5]) and ARGV[8] == 'tell' then return 3 end
redis.call('HDEL', KEYS[2], n)
if deferrals > tonumber(ARGV[5]) then
  local _, letter = to_dead(KEYS[5], KEYS[6], id, ARGV[1] .. '-' .. n, mine[1], int(now_ms), {unpack(ARGV, 9)})
  local ends = end_unstarted(KEYS[3], ARGV[7], 'd')
  if ends then
    note_runs(KEYS[3], letter)
    move_checkpoint(KEYS[3], letter, KEYS[8], int(now_ms))
    move_history(KEYS[3], letter)
  end
  redis.call('HDEL', KEYS[3], 'u')
  local at = note(letter, KEYS[1], KEYS[7], 'dead', id, ARGV[1], n, ARGV[10])
  if ends or not r[1] then tally_end(KEYS[7], at, 'DEAD', r, 2) end
  return 2
end
if delay_ms == 0 then delay_ms = 1000 * 2 ^ math.min(deferrals - 1, 5) end
redis.call('ZADD', KEYS[4], int(now_ms + delay_ms), mine[1])
note(KEYS[3], KEYS[1], KEYS[7], 'deferred', id, ARGV[1], n, ARGV[10])
return 1
