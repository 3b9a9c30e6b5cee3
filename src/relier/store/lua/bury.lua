#!lua flags=allow-oom
-- bury: a message that cannot be run goes to the dead letters as it came, with the reason.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 dead (zset)  4 dead letter (hash)  5 events (stream)  6 record (hash)
--       7 checkpoint files (hash)
-- ARGV  1 worker  2 claim  3 id of the letter  4 token of the message; then field, value, ... (reason, error, name)
-- returns 1 buried, 0 not ours, or started
--@include clock
--@include checkpoint
--@include event
--@include history
--@include life
--@include parcel
--@include letter
--@include tally
--@include worker
local worker, n = ARGV[1], ARGV[2]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], n, 's:' .. n, 'o:' .. n)
if not mine[1] or mine[2] or mine[3] then return 0 end
expect(KEYS[3], 'zset')
expect(KEYS[6], 'hash')
expect(KEYS[7], 'hash')
local now, r = int(now_us() / 1000), redis.call('HMGET', KEYS[6], 's', 'n')
local id, letter = to_dead(KEYS[3], KEYS[4], ARGV[3], worker .. '-' .. n, mine[1], now, {unpack(ARGV, 5)})
local ends = end_unstarted(KEYS[6], ARGV[4], 'd')
if ends then
  note_runs(KEYS[6], letter)
  move_checkpoint(KEYS[6], letter, KEYS[7], now)
  move_history(KEYS[6], letter)
end
redis.call('HDEL', KEYS[2], n)
local at = note(letter, KEYS[1], KEYS[5], 'dead', id, worker, n, ARGV[6])
-- A copy of a task that goes on ends nothing; what has no record was a task of its own.
if ends or not r[1] then tally_end(KEYS[5], at, 'DEAD', r, 2) end
return 1
