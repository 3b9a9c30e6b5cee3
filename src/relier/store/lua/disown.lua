#!lua flags=allow-oom
-- disown: give back claims that the server counts as started, or committed, and that no process of the worker works
--         under: a server that lost its last writes has forgotten how they ended. Nothing is blamed.
-- KEYS  1 worker entry (hash)  2 list (base name)  3 claims (hash)  4 bell (zset)  5 replay (list)  6 events (stream)
-- ARGV  1 worker  2 record key template  3 reason; then the claims, youngest first
-- returns how many were given back: committed ones to the replay list, the others to the head of their queue
--@include clock
--@include event
--@include history
--@include parcel
--@include idem
--@include replay
--@include worker
if not alive(KEYS[1]) then return 0 end
-- One that cannot go back is left, for the next time, and keeps nobody else: an error would undo nothing.
local function no_place(parcel, saved, record)
  if saved then return misfit(KEYS[5], 'list') end
  return misfit(KEYS[2] .. unwrap(parcel), 'list') or misfit(record, 'hash')
end
local returned = 0
for i = 4, #ARGV do
  local n = ARGV[i]
  local mine = redis.call('HMGET', KEYS[3], n, 's:' .. n, 'o:' .. n, 'k:' .. n)
  local parcel, started, saved = mine[1], mine[2], mine[3]
  local fence, attempt, _, id = run_of(started)
  local record = string.format(ARGV[2], id or '')
  if parcel and (started or saved) and not no_place(parcel, saved, record) then
    if saved then
      local replays, generation, root, outcome = committed(saved)
      redis.call('RPUSH', KEYS[5], replay_element(replays, generation, root, outcome, parcel))
      ring(KEYS[4])
    else
      to_head(KEYS[2], KEYS[4], parcel)
      local r = redis.call('HMGET', record, 's', 'w', 'c')
      if r[1] == 'r' and r[2] == ARGV[1] and r[3] == n then redis.call('HSET', record, 's', 'q', 'c', '') end
    end
    redis.call('HDEL', KEYS[3], n, 's:' .. n, 'o:' .. n, 'k:' .. n)
    if mine[4] then let_go(mine[4], ARGV[1], n, '', '') end
    note(record, KEYS[1], KEYS[6], saved and 'replay' or 'disowned', id or '', ARGV[1], n, ARGV[3], fence, attempt)
    returned = returned + 1
  end
end
return returned
