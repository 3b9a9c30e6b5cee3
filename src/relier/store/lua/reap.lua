#!lua flags=allow-oom
-- reap: take the claims of a dead worker, a batch at a time, and send each where it continues. The first batch
--       marks it dying and stores how many tasks it ran: a task is blamed only if it ran alone, or as the only suspect.
-- KEYS  1 worker entry (hash)  2 workers (set)  3 recovery list ('' in ARGV 11: unused)  4 recovery bell
--       5 queues (set)  6 past workers (stream); then for each of the queues:
--       list (base name), replay (list), scheduled (zset), claims (hash), bell (zset), events (stream)
-- ARGV  1 worker  2 beat judged  3 client id judged  4 most claims to move (never more than MOST_MOVED)
--        5 most messages a queue may hold (0: no limit)
--       6 max resurrections  7 max interruptions  8 record key template  9 record ttl ms
--       10 reason  11 '1' when resurrected tasks go to the recovery list  12, 13 outcomes when exhausted (blame, interruptions)
-- returns {status, unstarted, replayed, resurrected, exhausted}
--         status 1 finished, 0 more to do (or there are more queues than named), -1 it lives after all, -2 held back: a queue is too deep,
--         -3 stuck: the keys of a queue are not what they should be; what it holds of the others was moved
--@include clock
--@include event
--@include history
--@include past
--@include parcel
--@include replay
--@include trial
--@include idem
--@include tally
--@include giveback
-- Each move is some ten commands: so many keep Redis busy for a few ms.
local PER_QUEUE, MOST_MOVED = 6, 50
expect(KEYS[2], 'set')
local entry = redis.call('HMGET', KEYS[1], 'epoch', 'dying', 'beat', 'client_id', 'seen', 'trial', 'why')
local queues = {}
for k = 6, #KEYS - 1, PER_QUEUE do
  queues[#queues + 1] = {list = KEYS[k + 1], replay = KEYS[k + 2], scheduled = KEYS[k + 3], claims = KEYS[k + 4],
    bell = KEYS[k + 5], events = KEYS[k + 6]}
end
-- What it holds of a queue that the caller has not heard of would have no owner once its entry is gone.
if redis.call('SCARD', KEYS[5]) > #queues then return {0, 0, 0, 0, 0} end

-- Started means running: a committed task is past its body and cannot have killed anybody.
local started, pending, status = 0, {}, 1
for _, q in ipairs(queues) do
  local unreadable = misfit(q.claims, 'hash')
  if unreadable then status = -3 end
  local fields, present = unreadable and {} or redis.call('HKEYS', q.claims), {}
  for _, f in ipairs(fields) do present[f] = true end
  for _, f in ipairs(fields) do
    if string.match(f, '^%d+$') then
      pending[#pending + 1] = {q = q, n = f}
      if present['s:' .. f] and not present['o:' .. f] then started = started + 1 end
    end
  end
end

if entry[1] and not entry[2] then
  if (entry[3] or '') ~= ARGV[2] or (entry[4] or '') ~= ARGV[3] then return {-1, 0, 0, 0, 0} end
  redis.call('HSET', KEYS[1], 'dying', started, 'why', ARGV[10])
  entry[2], entry[7] = started, ARGV[10]
end

local counts = {unstarted = 0, replay = 0, requeued = 0, scheduled = 0, exhausted = 0}
-- Whoever goes on where another stopped says why it died, too.
local rules = {worker = ARGV[1], entry = KEYS[1], reason = entry[7] or ARGV[10], record = ARGV[8], ttl_ms = ARGV[9],
  blame = tonumber(entry[2] or started) == 1 and 'b' or 'i',
  died_ms = tonumber(entry[5] or 0), sole = on_trial(entry[6], entry[5]),
  max_resurrections = tonumber(ARGV[6]), max_interruptions = tonumber(ARGV[7]),
  exhausted_b = ARGV[12], exhausted_i = ARGV[13],
  list = ARGV[11] == '1' and KEYS[3] or '', bell = KEYS[4]}
table.sort(pending, function(a, b) return tonumber(a.n) > tonumber(b.n) end)
local moved, most_moved, depth_limit = 0, math.min(tonumber(ARGV[4]), MOST_MOVED), tonumber(ARGV[5])
for _, claim in ipairs(pending) do
  if moved >= most_moved then status = 0 break end
  if depth_limit > 0 and not misfit(claim.q.list, 'list') and redis.call('LLEN', claim.q.list) >= depth_limit then status = -2 break end
  local verdict = give_back(claim.q, claim.n, rules)
  if verdict == 'stuck' then status = -3 else moved = moved + 1 end
  if counts[verdict] then counts[verdict] = counts[verdict] + 1 end
end
local resurrected = counts.requeued + counts.scheduled
if entry[1] and (status == 1 or moved > 0) then
  remember_worker(KEYS[6], 'dead', ARGV[1], KEYS[1], rules.reason, resurrected)
end
if status == 1 then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[2], ARGV[1])
end
return {status, counts.unstarted, counts.replay, resurrected, counts.exhausted}
