#!lua flags=allow-oom
-- commit: save a task's outcome beside its claim. From here on it never runs again; whoever holds the claim
--         sends what follows from the outcome, and a crash only makes somebody else send it.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 record (hash)  4 events (stream)
-- ARGV  1 worker  2 claim  3 task id  4 state  5 outcome  6 what the idempotency key keeps, or ''  7 for how long, ms
--       8 '1' when the task goes on under its id (retry, replace), else '0'
-- returns 1 committed (also when asked again), 2 committed, and more wait for its key than were woken; 0 stale: nothing was
--         changed
--@include clock
--@include event
--@include history
--@include parcel
--@include idem
--@include counter
--@include tally
--@include worker
local worker, n = ARGV[1], ARGV[2]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], 's:' .. n, 'o:' .. n, 'k:' .. n)
if mine[2] then return 1 end
if not mine[1] then return 0 end
-- The life and generation that committed: ack must not end another's. A task that ran for longer than its record
-- lasts has none; writing a state into nothing would leave a record without a TTL, which refuses every later publish.
local r = redis.call('HMGET', KEYS[3], 'g', 'rt', 'n', 'at', 'due', 'f', 'h')
redis.call('HSET', KEYS[2], 'o:' .. n, table.concat({'0', r[1] or '0', r[2] or '', ARGV[5]}, '|'))
if r[1] then redis.call('HSET', KEYS[3], 's', 'c', 'c', '') end
local all_woken = true
if mine[3] then
  redis.call('HDEL', KEYS[2], 'k:' .. n)
  all_woken = let_go(mine[3], worker, n, ARGV[6], ARGV[7])
end
redis.call('HINCRBY', KEYS[1], counter(ARGV[4]), 1)
local fence, attempt = run_of(mine[1])
local at = event(KEYS[4], 'committed', ARGV[3], worker, n, ARGV[4], fence, attempt)
if r[7] then keep(KEYS[3], KEYS[1], at, KEYS[4], 'committed', worker, n, ARGV[4], fence, attempt) end
if ARGV[8] ~= '1' then tally_end(KEYS[4], at, ARGV[4], r, 3) end
return all_woken and 1 or 2
