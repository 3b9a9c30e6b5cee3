#!lua
-- enqueue: accept messages of one queue, all or none. Repeating it with the same tokens changes nothing.
-- KEYS  1 queues (set)  2 events (stream)  3 list (base name)  4 scheduled (zset)  5 bell (zset)
--       6.. record (hash) of each message
-- ARGV  1 queue  2 record ttl ms; then for each message:
--       id, token, generation, list suffix, delay ms, task name, raw message
-- returns for each message 1 queued, 2 scheduled, 0 already known (nothing written)
--@include clock
--@include event
--@include parcel
local WIDTH = 7
local function field(i, k) return ARGV[2 + (i - 1) * WIDTH + k] end

local count = #KEYS - 5
expect(KEYS[4], 'zset')
expect(KEYS[5], 'zset')
for i = 1, count do
  expect(KEYS[3] .. field(i, 4), 'list')
  expect(KEYS[5 + i], 'hash')
end

-- What a record says about this publish: a 'new' life, the 'next' generation of this one, a 'copy' of a task that
-- has not started (a purge or a stock worker may have taken the first), or nil: nothing to do.
local function judge(record, token, generation)
  local known = redis.call('HMGET', record, 's', 'g', 't:' .. token)
  local state = known[1]
  if not state then return 'new' end
  if known[3] then return nil end
  if generation > tonumber(known[2] or 0) then return 'next', state end
  if state == 'e' or state == 'd' then return 'new' end
  if state == 'q' then return 'copy', state end
  return nil
end

local now_ms = now_us() / 1000
local verdicts, awake = {}, false
redis.call('SADD', KEYS[1], ARGV[1])
for i = 1, count do
  local id, token, generation = field(i, 1), field(i, 2), field(i, 3)
  local suffix, delay_ms, raw = field(i, 4), tonumber(field(i, 5)), field(i, 7)
  local record = KEYS[5 + i]
  local verdict, state = judge(record, token, tonumber(generation))
  if not verdict then
    verdicts[i] = 0
  else
    if verdict == 'new' then
      redis.call('DEL', record)
      redis.call('HSET', record, 'n', field(i, 6), 'q', ARGV[1], 's', 'q', 'g', generation,
        'rt', token, 't:' .. token, generation, 'at', int(now_ms))
    else
      redis.call('HSET', record, 't:' .. token, generation)
      if verdict == 'next' and state ~= 'r' then
        redis.call('HSET', record, 's', 'q', 'g', generation, 'q', ARGV[1])
      end
    end
    redis.call('PEXPIRE', record, int(tonumber(ARGV[2]) + delay_ms))
    if delay_ms > 0 then
      local due_ms = now_ms + delay_ms
      redis.call('HSET', record, 'due', int(due_ms))
      redis.call('ZADD', KEYS[4], int(due_ms), suffix .. '|' .. raw)
      if redis.call('ZRANK', KEYS[4], suffix .. '|' .. raw) == 0 then awake = true end
      verdicts[i] = 2
    else
      redis.call('LPUSH', KEYS[3] .. suffix, raw)
      awake = true
      verdicts[i] = 1
    end
    event(KEYS[2], verdicts[i] == 2 and 'scheduled' or 'accepted', id, '', '', field(i, 6))
  end
end
if awake then ring(KEYS[5]) end
return verdicts
