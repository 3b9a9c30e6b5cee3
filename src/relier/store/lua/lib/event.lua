-- Append one lifecycle event; the stream is trimmed so that it can never fill the server.
local function event(stream, kind, id, worker, claim, detail)
  redis.call('XADD', stream, 'MAXLEN', '~', 10000, '*',
    'k', kind, 'i', id, 'w', worker, 'c', claim, 'r', detail or '')
end
