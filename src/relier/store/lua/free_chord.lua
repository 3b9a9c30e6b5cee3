#!lua flags=allow-oom
-- free_chord: take the lease on publishing a chord's body from a process that may be dead. Runs where Celery's
--             results are. The body has one id and one token, so two that publish it make one task.
-- KEYS  1 the chord's lease (string), as Celery's Redis backend keeps it
-- returns 1 free, 0 the body was published: the chord is done
if redis.call('GET', KEYS[1]) == 'done' then return 0 end
redis.call('DEL', KEYS[1])
return 1
