#!lua flags=allow-oom
-- close_chord: a chord's body, or its errbacks, were accepted; forget its parts. Runs where Celery's results are.
-- KEYS  1 parts (zset or list)  2 parts added later (string)  3 size (string)  4 who was counted (set)
--       5 lease on publishing (string)
-- ARGV  1 our name on the lease  2 how long a late copy of a part is told that all is done, s (0: Celery does not ask)
--       3 '1' when the chord failed: its parts stay for as long as they last, as Celery's error handlers expect
-- returns 1 closed, 0 the lease is not ours: closed before, or the chord was started again
if redis.call('GET', KEYS[5]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
if ARGV[3] ~= '1' then redis.call('DEL', KEYS[1]) end
if ARGV[2] ~= '0' then redis.call('SET', KEYS[5], 'done', 'EX', ARGV[2]) end
return 1
