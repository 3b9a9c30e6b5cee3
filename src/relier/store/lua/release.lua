#!lua flags=allow-oom
-- release: give claims back to the head of their queue; nothing is blamed. A started one goes back only when it is
--          handed over: its process was stopped, or ends with this call, and what it still says under the claim is stale.
-- KEYS  1 worker entry (hash)  2 list (base name)  3 claims (hash)  4 bell (zset)  5 events (stream)
-- ARGV  1 worker  2 '1' to hand over started ones  3 record key template  4 record ttl ms  5 reason;
--       then for each claim, youngest first, so that the oldest ends up at the head: claim, task id ('' when it has none)
-- returns for each claim 1 given back, 2 handed over, 0 neither: gone, committed, started and to stay, or its list is none
--@include clock
--@include event
--@include history
--@include parcel
--@include idem
--@include worker
-- What cannot go back stays, and keeps nobody else.
local function fits(parcel, record)
  return not misfit(KEYS[2] .. unwrap(parcel), 'list') and not (record and misfit(record, 'hash'))
end

local verdicts = {}
local living = alive(KEYS[1])
for i = 6, #ARGV, 2 do
  local n, id, verdict = ARGV[i], ARGV[i + 1], 0
  local mine = living and redis.call('HMGET', KEYS[3], n, 's:' .. n, 'o:' .. n, 'k:' .. n) or {}
  local record = mine[2] and string.format(ARGV[3], string.match(mine[2], '^%d+|%d+|%d+|(.*)$'))
  if mine[1] and not mine[3] and (not mine[2] or ARGV[2] == '1') and fits(mine[1], record) then
    verdict = mine[2] and 2 or 1
    to_head(KEYS[2], KEYS[4], mine[1])
    redis.call('HDEL', KEYS[3], n, 's:' .. n, 'k:' .. n)
    if mine[4] then let_go(mine[4], ARGV[1], n, '', '') end
    if mine[2] then
      local fence, attempt, _, own = run_of(mine[2])
      redis.call('HSET', record, 's', 'q', 'c', '')
      redis.call('PEXPIRE', record, ARGV[4])
      note(record, KEYS[1], KEYS[5], 'handed', own, ARGV[1], n, ARGV[5], fence, attempt)
    elseif id ~= '' then
      event(KEYS[5], 'returned', id, ARGV[1], n, ARGV[5])
    end
  end
  verdicts[#verdicts + 1] = verdict
end
return verdicts
