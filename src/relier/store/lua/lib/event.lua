-- Append one lifecycle event; the stream is trimmed so that it can never fill the server. It is for people: a key of
-- another type in its place must not stop a move half way.
local function event(stream, kind, id, worker, claim, detail)
  redis.pcall('XADD', stream, 'MAXLEN', '~', 10000, '*',
    'k', kind, 'i', id, 'w', worker, 'c', claim, 'r', detail or '')
end
