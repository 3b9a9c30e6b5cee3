#!lua flags=allow-oom
-- resume: end a queue's pause, and wake a worker at once.
-- KEYS  1 paused (string)  2 bell (zset)
-- returns 1 resumed, 0 it was not paused
--@include parcel
local resumed = redis.call('DEL', KEYS[1])
ring(KEYS[2])
return resumed
