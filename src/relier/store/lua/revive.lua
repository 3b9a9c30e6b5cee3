#!lua flags=allow-oom
-- revive: give a dead letter a new life in its queue. Two operators at once make one task.
-- KEYS  1 dead (zset)  2 dead letter (hash)  3 record (hash)  4 list (base name)  5 bell (zset)  6 events (stream)
--       7 checkpoint files (hash)
-- ARGV  1 id of the letter  2 token (new; also the root of what follows)  3 generation  4 list suffix  5 raw message
--       6 record ttl ms  7 queue  8 task name  9 task id  10 at_ms of the letter, or '' for whichever has the name
--       11 max resurrections of the new life, whatever its task says, or ''  12 ms until it expires, or ''
-- returns 1 released (also when asked again), 0 there is no such letter any more: the name may be a later one's,
--         -1 the task lives again: it was dispatched anew
--@include clock
--@include checkpoint
--@include event
--@include expiry
--@include history
--@include life
--@include parcel
--@include letter
expect(KEYS[4] .. ARGV[4], 'list')
expect(KEYS[2], 'hash')
expect(KEYS[7], 'hash')
local r = redis.call('HMGET', KEYS[3], 's', 'l', 't:' .. ARGV[2])
-- Asked again: by now the new life may have died in turn, and left a letter of the same name.
if r[3] then return 1 end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if ARGV[10] ~= '' and redis.call('HGET', KEYS[2], 'at_ms') ~= ARGV[10] then return 0 end
if r[1] and r[1] ~= 'e' and r[1] ~= 'd' then return -1 end
local now = int(now_us() / 1000)
local life = new_life(KEYS[3], r[2], ARGV[2], ARGV[3], ARGV[8], ARGV[7], now)
move_checkpoint(KEYS[2], KEYS[3], KEYS[7], now)
move_history(KEYS[2], KEYS[3])
if ARGV[11] ~= '' then redis.call('HSET', KEYS[3], 'om', ARGV[11]) end
drop_letter(KEYS[1], KEYS[2], ARGV[1])
local left_ms = tonumber(ARGV[12])
if left_ms then expires_at(KEYS[3], life, now + left_ms) end
redis.call('PEXPIRE', KEYS[3], int(tonumber(ARGV[6]) + (left_ms or 0)))
redis.call('LPUSH', KEYS[4] .. ARGV[4], ARGV[5])
ring(KEYS[5])
note(KEYS[3], '', KEYS[6], 'released', ARGV[9], '', '', '')
return 1
