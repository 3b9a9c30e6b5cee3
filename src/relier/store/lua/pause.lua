#!lua flags=allow-oom
-- pause: no worker starts a task of this queue any more; what runs goes on. Of two pauses the first stands.
-- KEYS  1 paused (string)
-- ARGV  1 id of this order  2 by whom (no '|')  3 reason
-- returns {1 paused by this order (also when asked again), or 0, "<ms since when>|<order>|<by whom>|<reason>" of what stands}
--@include clock
--@include parcel
expect(KEYS[1], 'string')
local note = table.concat({int(now_us() / 1000), ARGV[1], ARGV[2], ARGV[3]}, '|')
redis.call('SET', KEYS[1], note, 'NX')
local stands = redis.call('GET', KEYS[1])
return {string.match(stands, '^%d+|([^|]*)|') == ARGV[1] and 1 or 0, stands}
