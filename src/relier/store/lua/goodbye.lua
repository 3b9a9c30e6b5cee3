#!lua flags=allow-oom
-- goodbye: remove the entry of a worker that holds nothing any more.
-- KEYS  1 worker entry (hash)  2 workers (set)  3 past workers (stream)  4.. its claims (hash), one per queue
-- ARGV  1 worker id
-- returns 1 removed, 0 it still holds claims and stays for the resurrector
--@include parcel
--@include past
expect(KEYS[2], 'set')
for i = 4, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
if redis.call('EXISTS', KEYS[1]) == 1 then remember_worker(KEYS[3], 'left', ARGV[1], KEYS[1], '', 0) end
redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], ARGV[1])
return 1
