#!lua flags=allow-oom
-- claim: move up to n waiting messages into this worker's claims. A message leaves its list and enters the
--        claims in this one step, so no crash and no lost reply can drop it.
-- KEYS  1 worker entry (hash)  2 queues (set); then for each queue:
--       list (base name), replay (list), scheduled (zset), claims (hash), paused (string), bell (zset), events (stream)
-- ARGV  1 epoch  2 n (at most 250)  3 most messages to promote per queue  4 ',' and the index and ',' of each queue whose
--       replays are left to others; then the list suffixes, highest priority first
-- returns {status, ms until the next scheduled message or -1, then for each claim: queue index (from 0), claim number,
--          list suffix, raw message, "<replays>|<generation>|<root>|<outcome>" of a committed one or ''}
--         status 1 ok, 0 refused: no entry or being reaped, -1 refused: an older epoch
--         an error WRONGTYPE when a key of some queue is not what it should be and the others gave nothing
--@include clock
--@include event
--@include parcel
--@include replay
local PER_QUEUE, FIRST_SUFFIX = 7, 5
local entry = redis.call('HMGET', KEYS[1], 'epoch', 'dying', 'last')
if not entry[1] or entry[2] then return {0, -1} end
if entry[1] ~= ARGV[1] then return {-1, -1} end

expect(KEYS[2], 'set')
local at_us = now_us()
local now_ms = math.floor(at_us / 1000)
local number = math.max(tonumber(entry[3] or 0), at_us)
local worker, first = string.match(KEYS[1], 'rl:worker:(.*)$'), number + 1
local room = tonumber(ARGV[2])
local reply = {1, -1}
local queues, trouble = {}

-- An error after the first pop would lose what was popped: a queue whose keys are not what they should be is left
-- alone, and said to be so when there is nothing else to give.
local function sound(k)
  local kinds = {[KEYS[k + 2]] = 'list', [KEYS[k + 3]] = 'zset', [KEYS[k + 4]] = 'hash', [KEYS[k + 6]] = 'zset'}
  for s = FIRST_SUFFIX, #ARGV do kinds[KEYS[k + 1] .. ARGV[s]] = 'list' end
  local wrong
  for key, kind in pairs(kinds) do wrong = wrong or misfit(key, kind) end
  trouble = trouble or wrong
  return not wrong
end

for i = 0, (#KEYS - 2) / PER_QUEUE - 1 do
  local k = 2 + i * PER_QUEUE
  if sound(k) then
    queues[#queues + 1] = {index = i, list = KEYS[k + 1], replay = KEYS[k + 2], scheduled = KEYS[k + 3],
      claims = KEYS[k + 4], paused = redis.call('EXISTS', KEYS[k + 5]) == 1, bell = KEYS[k + 6], events = KEYS[k + 7], taken = {}}
  end
end

local function take(q, suffix, raw, committed)
  number = number + 1
  room = room - 1
  local n = int(number)
  local taken = q.taken
  taken[#taken + 1] = n
  taken[#taken + 1] = suffix .. '|' .. raw
  if committed ~= '' then
    taken[#taken + 1] = 'o:' .. n
    taken[#taken + 1] = committed
  end
  for _, value in ipairs({q.index, n, suffix, raw, committed}) do reply[#reply + 1] = value end
end

local function promote(q)
  local due = redis.call('ZRANGEBYSCORE', q.scheduled, '-inf', now_ms, 'LIMIT', 0, ARGV[3])
  for _, parcel in ipairs(due) do
    local suffix, raw = unwrap(parcel)
    redis.call('LPUSH', q.list .. suffix, raw)
    redis.call('ZREM', q.scheduled, parcel)
  end
end

local function next_due(q)
  local first = redis.call('ZRANGE', q.scheduled, 0, 0, 'WITHSCORES')
  if first[2] then
    local wait_ms = math.max(tonumber(first[2]) - now_ms, 0)
    if reply[2] < 0 or wait_ms < reply[2] then reply[2] = wait_ms end
  end
end

-- A paused queue gives no new work, but what had committed before still follows.
local open = {}
for _, q in ipairs(queues) do
  if not q.paused then
    open[#open + 1] = q
    promote(q)
    next_due(q)
  end
  local shunned = string.find(ARGV[4], ',' .. q.index .. ',', 1, true)
  while room > 0 and not shunned do
    local element = redis.call('RPOP', q.replay)
    if not element then break end
    local saved, parcel = read_replay(element)
    local suffix, raw = unwrap(parcel)
    take(q, suffix, raw, saved)
  end
end

for s = FIRST_SUFFIX, #ARGV do
  local suffix, progress = ARGV[s], true
  while room > 0 and progress do
    progress = false
    for i, q in ipairs(open) do
      local share = math.ceil(room / (#open - i + 1))
      if share > 0 then
        local popped = redis.call('RPOP', q.list .. suffix, share)
        for _, raw in ipairs(popped or {}) do
          take(q, suffix, raw, '')
          progress = true
        end
      end
    end
  end
end

if number > tonumber(entry[3] or 0) and #reply > 2 then redis.call('HSET', KEYS[1], 'last', int(number)) end
for _, q in ipairs(queues) do
  if #q.taken > 0 then
    redis.call('HSET', q.claims, unpack(q.taken))
    -- One event for all: whoever reads of a later move knows its claim, and so finds this.
    event(q.events, 'claimed', '', worker, int(first), int(number))
    redis.call('SADD', KEYS[2], string.match(q.replay, 'rl:{(.*)}:replay$'))
  end
  if room == 0 then
    -- More may be waiting: wake the next worker, since this one is full.
    local more = redis.call('EXISTS', q.replay)
    for s = FIRST_SUFFIX, q.paused and 0 or #ARGV do more = more + redis.call('EXISTS', q.list .. ARGV[s]) end
    if more > 0 then ring(q.bell) end
  end
end
if trouble and #reply == 2 then return {err = trouble} end
return reply
