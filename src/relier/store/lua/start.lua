#!lua flags=allow-oom
-- start: the process begins a task it holds a claim on. Asked again under the same claim, it says the same; a task whose
--        key is found by user code starts without it, so that this code runs under a started claim, and then with it.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 record (hash)  4 fence (string)  5 events (stream)  6 scheduled (zset)
--       7 idempotency keys with parked duplicates (set)  8 list (base name)  9 paused (string)
-- ARGV  1 worker  2 claim  3 task id  4 token  5 generation  6 task name  7 queue  8 record ttl ms
--       9 claims key template (queue, worker)  10 max resurrections of this task, or ''  11 of all others
--       12 shortest trial ms  13 longest trial ms  14 how long a suspect waits for a worker without another, ms
--       15 idempotency key (hash; its name is not in KEYS, as those of other workers' claims), or ''
--       16 '1' when its message says that its expiry is kept in its record
--       17 '1' when its body has begun, and the server may have forgotten that: neither a pause nor a trial holds it up then
-- returns {'run', fence, starts, returns, root token, generation, '', ''}; instead of the first '' the result of an earlier
--          run with the same idempotency key: commit that, and do not run the body; instead of the last why
--          it is not to run, commit that (lib/expiry); then the checkpoint of an earlier attempt: cp, cd
--         {'replay', '0', 0, 0, root token, generation}  it had committed: send its consequences, do not run it
--         {'stale'}  the claim is not ours any more: change nothing, run nothing
--         {'drop'}   a copy of a task that ended, runs, or has gone further; its claim is ended here
--         {'busy'}   an earlier generation still runs, or another suspect is on trial here; the message comes again
--         {'parked'} another task with the same idempotency key runs; the message waits for its end
--         {'paused'} its queue was paused after it was claimed; it is back at its head
--@include clock
--@include checkpoint
--@include event
--@include expiry
--@include history
--@include life
--@include parcel
--@include admit
--@include idem
--@include key
--@include replay
--@include trial
--@include worker
local worker, n, id, token, generation = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if not alive(KEYS[1]) then return {'stale'} end
local mine = redis.call('HMGET', KEYS[2], n, 's:' .. n, 'o:' .. n, 'k:' .. n)
if not mine[1] then return {'stale'} end
if mine[3] then
  local _, of, root = committed(mine[3])
  return {'replay', '0', 0, 0, root, of}
end

local r = redis.call('HMGET', KEYS[3], 's', 'g', 'q', 'w', 'c', 'b', 'i', 'a', 'rt', 'l', 't:' .. token, 'k', 'y', 'cp', 'x', 'u', 'om', 'ex', 'st', 'h', 'el')
local ex = expiry_of(r[18], r[21], r[10] or '1')
local function wait_for_key()
  expect_room_behind(ARGV[15], KEYS[7], ARGV[7])
  if mine[2] then
    redis.call('HDEL', KEYS[2], 's:' .. n)
    if r[1] then redis.call('HSET', KEYS[3], 's', 'q', 'c', '', 'a', int(tonumber(r[8] or 1) - 1)) end
  end
  park(ARGV[15], KEYS[7], KEYS[2], n, ARGV[7], mine[1])
  event(KEYS[5], 'parked', id, worker, n, ARGV[15])
  return {'parked'}
end
if mine[2] then
  local fence, starts, returns = string.match(mine[2], '^(%d+)|(%d+)|(%d+)|')
  local key, done, of = '', '', r[2] or generation
  -- One that does not own its key asks for it only now, because user code says it; or was told of a result, which may
  -- have expired since. Its body did not run, and must not run beside another.
  if ARGV[15] ~= '' and not mine[4] then key, done = ask_key(ARGV[15]) end
  if key == 'free' then own_key(ARGV[15], KEYS[2], worker, n, ARGV[7]) end
  if key == 'busy' then return wait_for_key() end
  -- It had expired, or not, when it was first asked for.
  local why = why_not(r[15], ex, ARGV[16], r[19] or 0)
  return hand_over(KEYS[3], r[14], of, {'run', fence, tonumber(starts), tonumber(returns), r[9] or token, of, done or '', why})
end

local verdict, asked, state, known_life = admit(r, generation, ARGV[9])
local life = r[10] or '1'
-- An operator who released a dead letter may have given its new life a limit of its own.
local own_limit = state and r[17] or ARGV[10]
if verdict == 'drop' then
  if not known_life then remember(KEYS[3], token, life, int(asked)) end
  redis.call('HDEL', KEYS[2], n)
  event(KEYS[5], 'duplicate', id, worker, n, '')
  return {'drop'}
end
local begun = ARGV[17] == '1'
if not begun and redis.call('EXISTS', KEYS[9]) == 1 then
  local suffix, raw = unwrap(mine[1])
  expect(KEYS[8] .. suffix, 'list')
  redis.call('RPUSH', KEYS[8] .. suffix, raw)
  redis.call('HDEL', KEYS[2], n)
  event(KEYS[5], 'returned', id, worker, n, 'paused')
  return {'paused'}
end
local done = ''
if verdict == 'run' and ARGV[15] ~= '' then
  local key, result = ask_key(ARGV[15])
  if key == 'busy' then return wait_for_key() end
  done = result or ''
end
local at_us = now_us()
local now_ms, again_ms = at_us / 1000, 1000
if verdict == 'run' and not begun and state and r[7] and suspects(tonumber(r[6] or 0), tonumber(r[7]), tonumber(own_limit ~= '' and own_limit or ARGV[11])) then
  expect(KEYS[6], 'zset')
  local ran_ms, waits_since_ms = tonumber(r[12] or 0), tonumber(r[13] or now_ms)
  if not stand_trial(KEYS[1], KEYS[3], KEYS[2], n, now_ms, ran_ms, waits_since_ms, {unpack(ARGV, 12)}) then
    verdict, again_ms = 'busy', 250
  end
end
if verdict == 'busy' then
  redis.call('ZADD', KEYS[6], int(now_ms + again_ms), mine[1])
  redis.call('HDEL', KEYS[2], n)
  return {'busy'}
end
local fence = math.max(tonumber(redis.call('GET', KEYS[4]) or 0) + 1, at_us)

if ARGV[15] ~= '' and done == '' then own_key(ARGV[15], KEYS[2], worker, n, ARGV[7]) end
redis.call('SET', KEYS[4], int(fence))
-- A record without a life was made by `revoke`, and is about this one; what was said of a life that ended is not.
local why = why_not((state or not r[10]) and r[15], state and ex, ARGV[16], int(now_ms))
local root, starts, returns = r[9] or token, tonumber(r[8] or 0) + 1, tonumber(r[6] or 0) + tonumber(r[7] or 0)
if not state then
  -- A message without a record still runs: stock producers write none, and records expire.
  life = new_life(KEYS[3], r[10], token, int(asked), ARGV[6], ARGV[7], int(now_ms))
  root, starts, returns, r[14], r[20] = token, 1, 0, nil, nil
end
redis.call('HSET', KEYS[3], 's', 'r', 'g', int(asked), 'q', ARGV[7], 'w', worker, 'c', n, 'a', starts,
  'st', int(now_ms), 't:' .. token, life .. ':' .. int(asked))
if own_limit ~= '' then redis.call('HSET', KEYS[3], 'm', own_limit) end
-- It found a worker that can run it: a later generation that waits for one is put off from the beginning again.
if r[16] then redis.call('HDEL', KEYS[3], 'u') end
redis.call('PEXPIRE', KEYS[3], ARGV[8])
redis.call('HSET', KEYS[2], 's:' .. n, table.concat({int(fence), starts, returns, id}, '|'))
local how = done ~= '' and 'cached' or why
local at = event(KEYS[5], 'started', id, worker, n, how, int(fence), starts)
if r[20] then keep(KEYS[3], KEYS[1], at, KEYS[5], 'started', worker, n, how, int(fence), starts) end
return hand_over(KEYS[3], r[14], asked, {'run', int(fence), starts, returns, root, int(asked), done, why})
