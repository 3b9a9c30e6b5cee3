#!lua flags=allow-oom
-- finish: commit, store the result and end the claim in one step, for a task from which nothing follows.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 record (hash)  4 events (stream)  5 result (string; unused without a value)
-- ARGV  1 worker  2 claim  3 task id  4 state (SUCCESS, ...)  5 record ttl ms after the end
--       6 result ttl s (0: keep)  7 result value or ''
--       8 what the idempotency key keeps, or ''  9 for how long, ms
-- returns 1 committed (also when asked again), 2 committed, and more wait for its key than were woken; 0 stale: nothing was
--         changed
--@include clock
--@include event
--@include history
--@include life
--@include parcel
--@include idem
--@include counter
--@include tally
--@include worker
-- A record names its claim (c) only while that claim runs it, and after it finished it: a process that lost the task
-- and comes back is not told that it committed, however the task ended since.
local worker, n, id = ARGV[1], ARGV[2], ARGV[3]
local mine = redis.call('HMGET', KEYS[2], 's:' .. n, 'o:' .. n, 'k:' .. n)
if not alive(KEYS[1]) or not mine[1] or mine[2] then
  local r = redis.call('HMGET', KEYS[3], 's', 'w', 'c')
  if r[1] == 'e' and r[2] == worker and r[3] == n then return 1 end
  return 0
end
-- First what Redis may refuse (a record of another type, an expiry that is none): the claim must not be gone by then.
local r = redis.call('HMGET', KEYS[3], 'rt', 'cp', 'n', 'at', 'due', 'f', 'h')
if ARGV[7] ~= '' then
  if ARGV[6] == '0' then
    redis.call('SET', KEYS[5], ARGV[7])
  else
    redis.call('SET', KEYS[5], ARGV[7], 'EX', ARGV[6])
  end
  redis.call('PUBLISH', KEYS[5], ARGV[7])
end
redis.call('HDEL', KEYS[2], n, 's:' .. n, 'k:' .. n)
local all_woken = not mine[3] or let_go(mine[3], worker, n, ARGV[8], ARGV[9])
redis.call('HSET', KEYS[3], 's', 'e', 'w', worker, 'c', n)
if r[2] then redis.call('HDEL', KEYS[3], 'cp', 'cd') end
rest(KEYS[3], r[1], ARGV[5])
redis.call('HINCRBY', KEYS[1], counter(ARGV[4]), 1)
local fence, attempt = run_of(mine[1])
local at = event(KEYS[4], 'ended', id, worker, n, ARGV[4], fence, attempt)
if r[7] then keep(KEYS[3], KEYS[1], at, KEYS[4], 'ended', worker, n, ARGV[4], fence, attempt) end
tally_end(KEYS[4], at, ARGV[4], r, 3)
return all_woken and 1 or 2
