-- Append one lifecycle event, and return its id, or '' when it could not be written; the stream is trimmed so that it can
-- never fill the server. It is for people: a key of another type in its place must not stop a move half way.
local function event(stream, kind, id, worker, claim, detail)
  local at = redis.pcall('XADD', stream, 'MAXLEN', '~', 10000, '*',
    'k', kind, 'i', id, 'w', worker, 'c', claim, 'r', detail or '')
  return type(at) == 'string' and at or ''
end
