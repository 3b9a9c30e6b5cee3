-- The history of a task in trouble (its worker died, it was handed over, put off, stopped, buried, ...) outlives the
-- streams: it is kept in the task's record, or in its dead letter, as text that no script reads. Field h: for each event
-- "<id in its stream>\t<kind>\t<queue>\t<worker>\t<its name>\t<claim>\t<fence>\t<attempt>\t<detail>\n". Of a long one the
-- first lines and the last stay; "~<how many>" stands for those between. A task that never was in trouble has none.
local MOST_LINES, FIRST_LINES, MOST_BYTES = 50, 5, 200

local function shortened(lines)
  local _, count = string.gsub(lines, '\n', '')
  if count <= MOST_LINES then return lines end
  local head = 1
  for _ = 1, FIRST_LINES do head = string.find(lines, '\n', head, true) + 1 end
  local dropped, rest = string.match(lines, '^~(%d+)\n()', head)
  rest = string.find(lines, '\n', rest or head, true) + 1
  return string.sub(lines, 1, head - 1) .. '~' .. int(tonumber(dropped or 0) + 1) .. '\n' .. string.sub(lines, rest)
end

-- Append an event to the history in a record or a letter, if that exists.
-- entry: of the worker, for its name; or ''
local function keep(holder, entry, at, stream, kind, worker, claim, detail, fence, attempt)
  if redis.call('TYPE', holder).ok ~= 'hash' then return end
  if at == '' then at = int(now_us() / 1000) .. '-0' end
  local queue = string.match(stream, 'rl:{(.*)}:events$')
  local name = entry ~= '' and redis.call('HGET', entry, 'name') or ''
  local cells = {at, kind, queue, worker, name, claim, fence or '', attempt or '', detail or ''}
  for i, cell in ipairs(cells) do cells[i] = string.gsub(string.sub(cell, 1, MOST_BYTES), '%c', ' ') end
  local lines = redis.call('HGET', holder, 'h') or ''
  redis.call('HSET', holder, 'h', shortened(lines .. table.concat(cells, '\t') .. '\n'))
end

-- Write an event that outlives its stream; returns its id there.
local function note(holder, entry, stream, kind, id, worker, claim, detail, fence, attempt)
  local at = event(stream, kind, id, worker, claim, detail, fence, attempt)
  keep(holder, entry, at, stream, kind, worker, claim, detail, fence, attempt)
  return at
end

local function move_history(from, to)
  local lines = redis.call('HGET', from, 'h')
  if not lines then return end
  redis.call('HSET', to, 'h', lines)
  redis.call('HDEL', from, 'h')
end
