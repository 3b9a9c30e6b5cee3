-- Lifecycle events, one per move, all with the same fields, so that a stream stores their names once. Phoenix trims the
-- streams to what is configured; this bound keeps one from filling the server while no Phoenix looks. An event is for
-- people: a key of another type in its place must not stop a move half way.
local MOST_EVENTS = 100000

-- Returns the event's id in its stream, '' when it could not be written.
local function event(stream, kind, id, worker, claim, detail, fence, attempt)
  local at = redis.pcall('XADD', stream, 'MAXLEN', '~', MOST_EVENTS, '*', 'k', kind, 'i', id, 'w', worker,
    'c', claim, 'f', fence or '', 'a', attempt or '', 'r', detail or '')
  return type(at) == 'string' and at or ''
end

-- What a claim says of the run that it started: fence, starts, returns, task id.
local function run_of(started)
  return string.match(started or '', '^(%d+)|(%d+)|(%d+)|(.*)$')
end
