-- How many tasks ended, and how, in hashes beside the queue's events: one per minute of the server's clock and one per
-- half hour. Each end is counted in its minute, and a minute is added to its half hour when the next one begins (`open`
-- names the one that was not yet). A field is "<how>|<ms that it took at most>|<task name>", as protocol/tally.py reads
-- it. How: (s)ucceeded, the only one with a latency, (f)ailed, (e)xpired, (d)ead without having run, (r)evoked or ignored;
-- "+" says up to which minute a half hour has them. A hash takes so many fields: later names are counted as '*'.
-- `finish` pays for every function that is made here, so there are few, and those that are seldom needed are within.

-- A field is new in the hash of a minute: heed how many there may be, and when it is the first, add up the minute before.
local function begin_field(base, minute, field)
  local MOST_FIELDS, AT_ONCE, MINUTES, HOUR_MS = 1000, 400, 30, 3600000
  local ADDED_KEPT_MS, KEPT_MS = 2 * HOUR_MS, 73 * HOUR_MS
  local hash = base .. 'm:' .. minute
  local function among_others(name) return (string.match(name, '^.-|.-|') or '') .. '*' end
  local fields = redis.call('HLEN', hash)
  if fields > MOST_FIELDS then
    redis.call('HDEL', hash, field)
    redis.pcall('HINCRBY', hash, among_others(field), 1)
  end
  if fields > 1 then return end

  redis.call('PEXPIRE', hash, KEPT_MS)
  -- An event's id never goes back, so nothing is counted in that minute any more.
  local before = redis.pcall('SET', base .. 'open', minute, 'PX', KEPT_MS, 'GET')
  if type(before) ~= 'string' or not string.match(before, '^%d+$') or before == minute then return end
  local from, half_hour = base .. 'm:' .. before, base .. 'h:' .. int(math.floor(before / MINUTES))
  if misfit(from, 'hash') or misfit(half_hour, 'hash') then return end
  local counts, room = redis.call('HGETALL', from), MOST_FIELDS - redis.call('HLEN', half_hour)
  for i = 1, #counts, 2 * AT_ONCE do
    local names, sums, others = {}, {}, {}
    for k = i, math.min(i + 2 * AT_ONCE, #counts) - 1, 2 do names[#names + 1] = counts[k] end
    for k, had in ipairs(redis.call('HMGET', half_hour, unpack(names))) do
      local name, n = names[k], tonumber(counts[i + 2 * k - 1]) or 0
      if not had then room = room - 1 end
      if had or room >= 0 then
        sums[#sums + 1] = name
        sums[#sums + 1] = int((tonumber(had) or 0) + n)
      else
        others[#others + 1] = {among_others(name), n}
      end
    end
    if #sums > 0 then redis.call('HSET', half_hour, unpack(sums)) end
    for _, other in ipairs(others) do redis.pcall('HINCRBY', half_hour, other[1], other[2]) end
  end
  redis.call('HSET', half_hour, '+', before)
  redis.call('PEXPIRE', half_hour, KEPT_MS)
  redis.call('PEXPIRE', from, ADDED_KEPT_MS)
end

-- Count the end of one task.
-- at: the id of the event of its end  r: its record's n, at, due and f, from the index `first` on; false when it has none
local function tally_end(events, at, state, r, first)
  local MINUTE_MS, LONGEST_NAME = 60000, 200
  local name, how, took = r[first] or '*', 's', ''
  local now_ms = tonumber(string.match(at, '^%d+')) or now_us() / 1000
  if #name > LONGEST_NAME then name = '*' end
  if state == 'SUCCESS' then
    -- For its caller it began when it was accepted, or first due, and not when a retry of it was.
    local began_ms = tonumber(r[first + 3] or r[first + 2] or r[first + 1])
    if began_ms then
      local took_ms = now_ms - began_ms
      -- Round figures, so that an objective can be one of them.
      local figures = took_ms <= 1000 and {10, 20, 50, 100, 200, 500, 1000}
        or took_ms <= 60000 and {2000, 5000, 10000, 20000, 30000, 60000}
        or {120000, 300000, 600000, 1200000, 1800000, 3600000, 7200000, 10800000, 21600000}
      took = 'inf'
      for i = #figures, 1, -1 do
        if took_ms <= figures[i] then took = figures[i] end
      end
    end
  else
    how = ({EXPIRED = 'e', REVOKED = 'r', IGNORED = 'r', DEAD = 'd'})[state] or 'f'
  end
  local base, minute = string.sub(events, 1, -7) .. 'tally:', int(math.floor(now_ms / MINUTE_MS))
  local field = how .. '|' .. took .. '|' .. name
  -- It is counted in the middle of a move: whatever is in the hash's place must not stop that.
  if redis.pcall('HINCRBY', base .. 'm:' .. minute, field, 1) == 1 then begin_field(base, minute, field) end
end
