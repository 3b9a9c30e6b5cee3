#!lua
-- enqueue: accept messages of one queue, all or none. Repeating it with the same tokens changes nothing.
-- KEYS  1 queues (set)  2 events (stream)  3 list (base name)  4 scheduled (zset)  5 bell (zset)
--       6.. record (hash) of each message; then, when they are subject to admission: tenants (zset), and the count of each
--       limit (list in a window, string when smooth)
-- ARGV  1 queue  2 record ttl ms  3 number of messages; then for each message:
--       id, token, generation, list suffix, delay ms, task name, raw message, ms until it expires ('' for no word of that)
--       then, when they are subject to admission: 'window' | 'smooth', window ms, most waiting messages (0: any), '|' and
--       suffix of each of the queue's lists, number of limits; for each limit: tenant ('' the cluster, which comes first),
--       limit, most at once; then for each message the number of its tenant's limit (0: none)
-- returns for each message 1 queued, 2 scheduled, 0 already known (nothing written); or a refusal (lib/admission)
--@include clock
--@include event
--@include expiry
--@include life
--@include parcel
local HEAD, WIDTH = 3, 8
local function field(i, k) return ARGV[HEAD + (i - 1) * WIDTH + k] end

-- What a record says about this publish: a 'new' life, the 'next' generation of this one, a 'copy' of a task that
-- has not started (a purge or a stock worker may have taken the first), a 'noop' beside one that runs or goes on
-- elsewhere, or nil: this very publish is known.
local function judge(r, generation)
  if not r[1] then return 'new' end
  if r[4] then return nil end
  if r[1] == 'e' or r[1] == 'd' then return 'new' end
  if generation > tonumber(r[2] or 0) then return 'next' end
  if r[1] == 'q' then return 'copy' end
  return 'noop'
end

local verdicts, records = {}, {}
local function look(i)
  records[i] = redis.call('HMGET', KEYS[5 + i], 's', 'g', 'l', 't:' .. field(i, 2))
  verdicts[i] = judge(records[i], tonumber(field(i, 3)))
end

-- Read everything first: an error of type after the first write would accept half.
local count = tonumber(ARGV[3])
local checked, written = {}, {}
expect(KEYS[4], 'zset')
expect(KEYS[5], 'zset')
for i = 1, count do
  local suffix = field(i, 4)
  if not checked[suffix] then
    expect(KEYS[3] .. suffix, 'list')
    checked[suffix] = true
  end
  look(i)
end

local now_ms = now_us() / 1000
if #ARGV > HEAD + count * WIDTH then
  -- Included where it is asked: who has no limits does not pay for making its functions.
  --@include window
  --@include admission
  expect(KEYS[1], 'set')
  local delays, seen = {}, {}
  for i = 1, count do
    -- What is known takes no slot, and neither does what the first of two alike makes known.
    local publish = KEYS[5 + i] .. '|' .. field(i, 2)
    delays[i] = (verdicts[i] == 'new' or verdicts[i] == 'copy') and not seen[publish] and tonumber(field(i, 5))
    seen[publish] = true
  end
  local refusal = admit(6 + count, HEAD + count * WIDTH + 1, KEYS[3], delays, now_ms)
  if refusal then return refusal end
end
local now = int(now_ms)
local waiting, awake, answers = {}, false, {}
redis.call('SADD', KEYS[1], ARGV[1])
for i = 1, count do
  -- The second message of one id is judged by what the first has written.
  if written[KEYS[5 + i]] then look(i) end
  written[KEYS[5 + i]] = true
  local verdict, record, token, generation = verdicts[i], KEYS[5 + i], field(i, 2), field(i, 3)
  local suffix, delay_ms, raw, left_ms = field(i, 4), tonumber(field(i, 5)), field(i, 7), tonumber(field(i, 8))
  local r = records[i]
  local life = r[3] or '1'
  if verdict == 'new' then
    life = new_life(record, r[3], token, generation, field(i, 6), ARGV[1], now)
  elseif verdict then
    -- A copy of a task that waits is of the generation that waits; one that is refused must not run later either.
    local as = verdict == 'copy' and r[2] or generation
    remember(record, token, life, as)
    if verdict == 'next' and r[1] ~= 'r' then
      redis.call('HSET', record, 's', 'q', 'g', generation, 'q', ARGV[1])
    end
  end
  if not verdict or verdict == 'noop' then
    answers[i] = 0
  else
    if left_ms then expires_at(record, life, now_ms + left_ms) end
    redis.call('PEXPIRE', record, int(tonumber(ARGV[2]) + math.max(delay_ms, left_ms or 0)))
    if delay_ms > 0 then
      local due = int(now_ms + delay_ms)
      if verdict == 'next' then keep_first_due(record) end
      redis.call('HSET', record, 'due', due)
      redis.call('ZADD', KEYS[4], due, suffix .. '|' .. raw)
      if redis.call('ZRANK', KEYS[4], suffix .. '|' .. raw) == 0 then awake = true end
      answers[i] = 2
    else
      waiting[suffix] = waiting[suffix] or {}
      table.insert(waiting[suffix], raw)
      answers[i] = 1
    end
    event(KEYS[2], answers[i] == 2 and 'scheduled' or 'accepted', field(i, 1), '', '', field(i, 6))
  end
end
for suffix, raws in pairs(waiting) do
  redis.call('LPUSH', KEYS[3] .. suffix, unpack(raws))
  awake = true
end
if awake then ring(KEYS[5]) end
return answers
