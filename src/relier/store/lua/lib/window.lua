-- Two ways to count what a limit has admitted, by the server's clock. A limit is a table: key, limit (per window), burst
-- (at once), n (how many ask now, at most burst). `wait` says how many ms n must wait, 0 for not at all; `take` takes n.
local MOST_ENTRIES, GRACE_MS, ROUNDING_MS = 2000, 1000, 0.001

-- window: a log, oldest first, of "<ms from which it counts>:<how many>:<how many ever>:<limit>:<window ms>".
-- In no span of window_ms does it admit more than the limit.
local log = {kind = 'list'}

local function entry(text)
  local at, n, sum = string.match(text, '^(%d+):(%d+):(%d+)')
  return tonumber(at), tonumber(n), tonumber(sum)
end

function log.wait(l, window_ms, now_ms)
  local oldest, n, sum
  while true do
    local text = redis.call('LINDEX', l.key, 0)
    if not text then return 0 end
    oldest, n, sum = entry(text)
    if oldest + window_ms > now_ms then break end
    redis.call('LPOP', l.key)
  end
  l.last, l.last_n, l.ever = entry(redis.call('LINDEX', l.key, -1))
  local before = sum - n
  local excess = l.ever - before + l.n - l.limit
  if excess <= 0 then return 0 end
  -- Each entry makes room for one at least.
  for _, text in ipairs(redis.call('LRANGE', l.key, 0, excess - 1)) do
    local at, _, upto = entry(text)
    if upto - before >= excess then return math.ceil(at + window_ms - now_ms) end
  end
end

function log.take(l, window_ms, now_ms)
  -- A long log is kept short: what comes in one part of the window counts from that part's end.
  local part_ms = l.limit > MOST_ENTRIES and math.ceil(window_ms / MOST_ENTRIES) or 1
  local at, n, sum = math.ceil(now_ms / part_ms) * part_ms, l.n, l.n + (l.ever or 0)
  local joins = l.last and l.last >= at
  if joins then at, n = l.last, l.last_n + n end
  local text = string.format('%.0f:%.0f:%.0f:%.0f:%.0f', at, n, sum, l.limit, window_ms)
  if joins then return redis.call('LSET', l.key, -1, text) end
  redis.call('RPUSH', l.key, text)
  redis.call('PEXPIRE', l.key, int(at - now_ms + window_ms + GRACE_MS))
end

-- smooth: the generic cell rate algorithm. "<ms at which all that was admitted is paid for>:<limit>:<burst>:<window ms>"
local smooth = {kind = 'string'}

function smooth.wait(l, window_ms, now_ms)
  local paid_ms = string.match(redis.call('GET', l.key) or '0', '^[%d.]+')
  l.from_ms = math.max(tonumber(paid_ms), now_ms)
  local wait_ms = l.from_ms - now_ms + (l.n - l.burst) * window_ms / l.limit
  return math.max(math.ceil(wait_ms - ROUNDING_MS), 0)
end

function smooth.take(l, window_ms, now_ms)
  local paid_ms = l.from_ms + l.n * window_ms / l.limit
  local text = string.format('%.3f:%.0f:%.0f:%.0f', paid_ms, l.limit, l.burst, window_ms)
  redis.call('SET', l.key, text, 'PX', int(paid_ms - now_ms + GRACE_MS))
end
