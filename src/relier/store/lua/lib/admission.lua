-- Admission: every limit is asked before any is taken.
local DEPTH_RETRY_MS = 1000

-- Read the limits at KEYS[k + 1].. and ARGV[a].., and count how many messages ask each; one that takes no slot (false in
-- `delays`) asks none. Returns those that are asked.
local function limits_asked(k, a, delays)
  local limits, asked, number = {}, {}, tonumber(ARGV[a])
  for j = 1, number do
    local at = a + 3 * j
    limits[j] = {key = KEYS[k + j], tenant = ARGV[at - 2], limit = tonumber(ARGV[at - 1]), burst = tonumber(ARGV[at]), n = 0}
  end
  local cluster = limits[1] and limits[1].tenant == '' and limits[1]
  for i = 1, #delays do
    local own = limits[tonumber(ARGV[a + 3 * number + i]) or 0]
    if delays[i] and cluster then cluster.n = cluster.n + 1 end
    if delays[i] and own then own.n = own.n + 1 end
  end
  for _, l in ipairs(limits) do
    if l.n > 0 then asked[#asked + 1] = l end
  end
  return asked
end

-- How many messages wait in a queue's lists ('|suffix|suffix...').
local function depth_of(list, suffixes)
  local depth = 0
  for suffix in string.gmatch(suffixes, '|([^|]*)') do depth = depth + redis.call('LLEN', list .. suffix) end
  return depth
end

-- Note for how long a tenant's count lasts, so that people can be shown who there is.
local function register(tenants, l, now_ms)
  local ttl_ms = redis.call('PTTL', l.key)
  redis.call('ZREMRANGEBYSCORE', tenants, '-inf', int(now_ms))
  redis.call('ZADD', tenants, int(now_ms + ttl_ms), l.tenant)
  if redis.call('PTTL', tenants) < ttl_ms then redis.call('PEXPIRE', tenants, ttl_ms) end
end

-- Admit messages: take from every limit and return nil, or take nothing and return why not: {-1, ms to wait (-1: no wait
-- would help), 'cluster' | 'tenant' | 'depth', the limit, how many it admits at once, how many asked}. A queue's depth
-- has no clock: that wait is a hint.
-- delays: of each message in ms, or false when it takes no slot
local function admit(k, a, list, delays, now_ms)
  local way, window_ms, deepest = ARGV[a] == 'smooth' and smooth or log, tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local limits, refusal, here = limits_asked(k, a + 4, delays), nil, 0
  for _, l in ipairs(limits) do
    expect(l.key, way.kind)
    if l.tenant ~= '' then expect(KEYS[k], 'zset') end
  end
  local function refuse(wait_ms, ...)
    local longest = refusal and refusal[2] or 0
    if longest ~= -1 and (wait_ms == -1 or wait_ms > longest) then refusal = {-1, wait_ms, ...} end
  end
  for i = 1, #delays do
    if delays[i] == 0 then here = here + 1 end
  end
  if deepest > 0 and here > 0 and depth_of(list, ARGV[a + 3]) + here > deepest then
    refuse(here > deepest and -1 or DEPTH_RETRY_MS, 'depth', deepest, deepest, here)
  end
  for _, l in ipairs(limits) do
    local wait_ms = l.n > l.burst and -1 or way.wait(l, window_ms, now_ms)
    if wait_ms ~= 0 then refuse(wait_ms, l.tenant == '' and 'cluster' or 'tenant', l.limit, l.burst, l.n) end
  end
  if refusal then return refusal end
  for _, l in ipairs(limits) do
    way.take(l, window_ms, now_ms)
    if l.tenant ~= '' then register(KEYS[k], l, now_ms) end
  end
end
