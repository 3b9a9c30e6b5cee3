#!lua flags=allow-oom
-- discard: end claims that will never start (revoked, expired, acknowledged early, plain messages).
-- KEYS  1 worker entry (hash)  2 claims (hash)  3 events (stream); then for each claim its record (hash)
-- ARGV  1 worker  2 record ttl ms; then for each claim: claim, task id ('' when it has none), its token, reason
-- returns how many were ended; started ones stay
--@include event
--@include life
--@include parcel
--@include worker
if not alive(KEYS[1]) then return 0 end
local ended = 0
for i = 1, #KEYS - 3 do
  local n, id, token, reason = ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1], ARGV[4 * i + 2]
  local mine = redis.call('HMGET', KEYS[2], n, 's:' .. n, 'o:' .. n)
  if mine[1] and not mine[2] and not mine[3] then
    redis.call('HDEL', KEYS[2], n)
    ended = ended + 1
    if id ~= '' then
      -- They end together: a record that is none must not keep the others.
      if not misfit(KEYS[3 + i], 'hash') and end_unstarted(KEYS[3 + i], token, 'e') then
        redis.call('HDEL', KEYS[3 + i], 'cp', 'cd')
        redis.call('PEXPIRE', KEYS[3 + i], ARGV[2])
      end
      event(KEYS[3], 'ended', id, ARGV[1], n, reason)
    end
  end
end
return ended
