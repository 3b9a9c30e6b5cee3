#!lua flags=allow-oom
-- ack: all that follows from a committed task was accepted; end its claim. The next generation of the same
--      task (retry, replace), or its dead letter, comes into being in the same step.
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 record (hash)  4 events (stream)  5 list (base name)  6 scheduled (zset)
--       7 bell (zset)  8 dead (zset)  9 dead letter (hash)  10 checkpoint files (hash)
-- ARGV  1 worker  2 claim  3 task id  4 'ended' | 'dead' | 'next' | 'continued' (its next generation comes from
--       elsewhere: a chord's body or a chain's end has taken over the id)  5 record ttl ms; then
--       dead: 6 field, value, ... of the letter
--       next: 6 token  7 generation  8 list suffix  9 delay ms  10 raw message  11 queue  12 task name
--             13 ms until it expires, or '' when that stays as it is
-- returns 1 ended, 0 the claim is gone: ended before, or in other hands that will send again
--@include clock
--@include checkpoint
--@include event
--@include expiry
--@include history
--@include life
--@include parcel
--@include letter
--@include replay
--@include worker
local worker, n, id, final = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not alive(KEYS[1]) then return 0 end
local mine = redis.call('HMGET', KEYS[2], n, 'o:' .. n, 's:' .. n)
if not mine[2] then return 0 end

local now_ms = now_us() / 1000
local _, generation, root = committed(mine[2])
local r = redis.call('HMGET', KEYS[3], 's', 'g', 'rt', 'l', 'cp', 'h')
-- A later generation may already be on its way, or the id live again: then the record is no longer this commit's.
local current = r[1] == 'c' and r[2] == generation and r[3] == root
local troubled, why = current and r[6] and KEYS[3], ''

local function release_next()
  local token, suffix, delay_ms, raw, queue = ARGV[6], ARGV[8], tonumber(ARGV[9]), ARGV[10], ARGV[11]
  expect(KEYS[5] .. suffix, 'list')
  expect(KEYS[6], 'zset')
  if redis.call('HEXISTS', KEYS[3], 't:' .. token) == 1 then return end
  local as = int(math.max(tonumber(ARGV[7]), tonumber(generation) + 1))
  local life = r[4] or '1'
  if not r[1] then
    life = new_life(KEYS[3], false, token, as, ARGV[12], queue, int(now_ms))
    redis.call('HSET', KEYS[3], 'rt', root)
  else
    remember(KEYS[3], token, life, as)
    forget_old(KEYS[3], tonumber(life), tonumber(as))
    if current then redis.call('HSET', KEYS[3], 's', 'q', 'g', as, 'q', queue) end
    if current and r[5] and replacements(as) ~= replacements(generation) then drop_checkpoint(KEYS[3]) end
  end
  local left_ms = tonumber(ARGV[13])
  if left_ms then expires_at(KEYS[3], life, now_ms + left_ms) end
  redis.call('PEXPIRE', KEYS[3], int(tonumber(ARGV[5]) + math.max(delay_ms, left_ms or 0)))
  if delay_ms > 0 then
    keep_first_due(KEYS[3])
    redis.call('HSET', KEYS[3], 'due', int(now_ms + delay_ms))
    redis.call('ZADD', KEYS[6], int(now_ms + delay_ms), suffix .. '|' .. raw)
  else
    redis.call('LPUSH', KEYS[5] .. suffix, raw)
  end
  ring(KEYS[7])
end

if final == 'next' then
  release_next()
elseif final == 'dead' then
  expect(KEYS[8], 'zset')
  expect(KEYS[10], 'hash')
  local _, letter = to_dead(KEYS[8], KEYS[9], id, worker .. '-' .. n, mine[1], int(now_ms), {unpack(ARGV, 6)})
  if current then
    redis.call('HSET', KEYS[3], 's', 'd')
    note_runs(KEYS[3], letter)
    move_checkpoint(KEYS[3], letter, KEYS[10], int(now_ms))
    move_history(KEYS[3], letter)
  end
  troubled, why = letter, redis.call('HGET', letter, 'reason')
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
elseif current then
  redis.call('HSET', KEYS[3], 's', final == 'continued' and 'w' or 'e')
  if r[5] then drop_checkpoint(KEYS[3]) end
  rest(KEYS[3], root, ARGV[5])
end
redis.call('HDEL', KEYS[2], n, 's:' .. n, 'o:' .. n)
local fence, attempt = run_of(mine[3])
local at = event(KEYS[4], final, id, worker, n, why, fence, attempt)
if troubled then keep(troubled, KEYS[1], at, KEYS[4], final, worker, n, why, fence, attempt) end
return 1
