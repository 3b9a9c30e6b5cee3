#!lua flags=allow-oom
-- purge_waiting: remove messages that wait, and leave a tombstone of each task. What must follow from one all the same (a chord
--        counts it) is handed to the workers as the outcome of a revoked task.
-- KEYS  1 where they wait (list, or zset of parcels)  2 replay (list)  3 bell (zset)  4 events (stream)
--       5 what this batch has done (string)  6.. record (hash) of each message
-- ARGV  1 'list' | 'zset'  2 list suffix, '' in a zset  3 claims key template (queue, worker)  4 record ttl ms after the end
--       5 outcome of a revoked task  6 how long a repeat of this batch is recognised, ms; then for each message, in
--       the order in which they would be claimed: raw (in a zset: parcel), task id ('' when it has none), token, generation,
--       '1' when something follows
-- returns {removed, ended, revoked (to the workers), others (copies of tasks that go on elsewhere, and no tasks)}
--@include clock
--@include event
--@include life
--@include parcel
--@include admit
--@include replay
--@include tally
local HEAD, WIDTH, FIRST_RECORD = 6, 5, 6
local said = redis.call('GET', KEYS[5])
if said then return {string.match(said, '^(%d+)|(%d+)|(%d+)|(%d+)$')} end
expect(KEYS[1], ARGV[1])
expect(KEYS[2], 'list')
expect(KEYS[4], 'stream')
local index, count, gone, seen = {}, (#ARGV - HEAD) / WIDTH, {}, {}
for i = 1, count do index[ARGV[HEAD + (i - 1) * WIDTH + 1]] = i end

-- Those that are still there; in a list only what is next, as far as it is known.
if ARGV[1] == 'list' then
  local waiting = redis.call('LRANGE', KEYS[1], -count, -1)
  for at = #waiting, 1, -1 do
    if not index[waiting[at]] then break end
    gone[#gone + 1] = index[waiting[at]]
  end
else
  for parcel, i in pairs(index) do
    if redis.call('ZSCORE', KEYS[1], parcel) then gone[#gone + 1] = i end
  end
end
-- An error after the first removal would lose a message without a trace: read every record first.
local records = {}
for _, i in ipairs(gone) do
  local token = ARGV[HEAD + (i - 1) * WIDTH + 3]
  records[i] = redis.call('HMGET', KEYS[FIRST_RECORD + i - 1], 's', 'g', 'q', 'w', 'c', 'b', 'i', 'a', 'rt', 'l', 't:' .. token, 'n')
end
if ARGV[1] == 'list' and #gone > 0 then redis.call('LTRIM', KEYS[1], 0, -#gone - 1) end

local done = {#gone, 0, 0, 0}
for _, i in ipairs(gone) do
  local raw, id, token, generation, follows = unpack(ARGV, HEAD + (i - 1) * WIDTH + 1, HEAD + i * WIDTH)
  local record, r = KEYS[FIRST_RECORD + i - 1], records[i]
  if ARGV[1] == 'zset' then redis.call('ZREM', KEYS[1], raw) end
  local verdict, asked = 'drop', 0
  if id ~= '' and not seen[raw] then verdict, asked = admit(r, generation, ARGV[3]) end
  seen[raw] = true
  if verdict == 'drop' then
    done[4] = done[4] + 1
    if id ~= '' then event(KEYS[4], 'duplicate', id, '', '', 'purged') end
  elseif follows == '1' then
    local current = end_unstarted(record, token, 'c')
    local parcel = ARGV[1] == 'zset' and raw or ARGV[2] .. '|' .. raw
    redis.call('LPUSH', KEYS[2], replay_element('0', int(asked), current and r[9] or token, ARGV[5], parcel))
    ring(KEYS[3])
    tally_end(KEYS[4], event(KEYS[4], 'revoked', id, '', '', 'purged'), 'REVOKED', r, 12)
    done[3] = done[3] + 1
  else
    if end_unstarted(record, token, 'e') then
      redis.call('HDEL', record, 'cp', 'cd')
      redis.call('PEXPIRE', record, ARGV[4])
    end
    tally_end(KEYS[4], event(KEYS[4], 'ended', id, '', '', 'purged'), 'REVOKED', r, 12)
    done[2] = done[2] + 1
  end
end
redis.call('SET', KEYS[5], table.concat(done, '|'), 'PX', ARGV[6])
return done
