-- The server's clock in microseconds: the only clock that delays and fences are measured by.
local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- Integers go out as text: Lua would print a microsecond timestamp as 1.795e+15.
local function int(n)
  return string.format('%.0f', n)
end
