#!lua flags=allow-oom
-- free_files: say which of these files no checkpoint refers to. They are forgotten in this step: from now on `checkpoint`
--             accepts none of them, so whoever asked may remove them.
-- KEYS  1 files (hash)
-- ARGV  1 how long a file may be reserved without being referred to, ms  2.. names (at most 250)
-- returns the names of those to remove
--@include clock
--@include parcel
local oldest_ms, free = now_us() / 1000 - tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  local name = ARGV[i]
  local since, holder = string.match(redis.call('HGET', KEYS[1], name) or '', '^(%d+)|(.*)$')
  local held = holder and not misfit(holder, 'hash') and redis.call('HGET', holder, 'cp')
  local needed = held and string.sub(held, -#name - 1) == '/' .. name
  if not since or (not needed and tonumber(since) <= oldest_ms) then
    redis.call('HDEL', KEYS[1], name)
    free[#free + 1] = name
  end
end
return free
