#!lua flags=allow-oom
-- reap_claim: a worker takes back one claim whose pool process died; the task it ran is blamed for it.
-- KEYS  1 worker entry (hash)  2 list (base name)  3 replay (list)  4 scheduled (zset)  5 claims (hash)  6 bell (zset)
--       7 events (stream)  8 recovery list  9 recovery bell
-- ARGV  1 worker  2 claim  3 max resurrections  4 max interruptions  5 record key template  6 record ttl ms
--       7 reason  8 '1' when resurrected tasks go to the recovery list  9 outcome when exhausted
-- returns {verdict, task id, returns so far}; verdict as in give_back, 'gone' also when the worker itself is gone
--@include clock
--@include event
--@include history
--@include parcel
--@include worker
--@include replay
--@include trial
--@include idem
--@include tally
--@include giveback
if not alive(KEYS[1]) then return {'gone', '', 0} end
local q = {list = KEYS[2], replay = KEYS[3], scheduled = KEYS[4], claims = KEYS[5], bell = KEYS[6], events = KEYS[7]}
local verdict, id, returns = give_back(q, ARGV[2], {worker = ARGV[1], entry = KEYS[1], reason = ARGV[7], blame = 'b', unstarted_delay_ms = 1000,
  max_resurrections = tonumber(ARGV[3]), max_interruptions = tonumber(ARGV[4]), record = ARGV[5], ttl_ms = ARGV[6],
  exhausted_b = ARGV[9], exhausted_i = ARGV[9], list = ARGV[8] == '1' and KEYS[8] or '', bell = KEYS[9]})
if verdict == 'stuck' then return {err = id} end
return {verdict, id, returns}
