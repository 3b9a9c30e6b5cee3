-- True while the worker has an entry and nobody has begun to reap it.
local function alive(entry)
  local fields = redis.call('HMGET', entry, 'epoch', 'dying')
  return fields[1] and not fields[2]
end
