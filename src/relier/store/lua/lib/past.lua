-- What became of worker processes: who a worker id was, and why it is gone, for as long as people may ask.
local MOST_PAST = 10000

local function remember_worker(past, kind, worker, entry, reason, returned)
  local name = redis.pcall('HGET', entry, 'name')
  redis.pcall('XADD', past, 'MAXLEN', '~', MOST_PAST, '*', 'k', kind, 'w', worker, 'n', type(name) == 'string' and name or '',
    'r', reason, 'd', returned)
end
