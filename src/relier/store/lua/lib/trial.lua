-- A task that ran in several workers when they died, beside others, is a suspect. It starts only where no other suspect
-- is on trial, so that the next death tells who did it. A suspect is on trial until it has run for twice as long as
-- it ever had at least when its worker died, and its worker has beaten since: what kills sooner or later has killed by then,
-- and what is left of a dead worker clears nobody. An entry's field "trial" is "<claim, '' for several>|<until ms>|<claims key>".
-- Of those that wait, who had run for the shortest time in all goes first: what kills, mostly kills early. It is in the
-- field "next", "<ran ms>|<asked ms>|<record>", for as long as it keeps asking.
local MOST_INTERRUPTIONS_UNNOTICED = 3
local ASKS_WITHIN_MS = 1000

-- Whether a task that ran in so many deaths may have done those beside others; and how many of these count as blame,
-- once it is found out: so it runs no more often than one whose deaths were all its own.
local function suspects(deaths, interruptions, max_resurrections)
  local unnoticed = math.max(1, math.min(MOST_INTERRUPTIONS_UNNOTICED, max_resurrections))
  return interruptions > 0 and deaths + interruptions >= unnoticed, math.min(interruptions, unnoticed)
end

-- The claim on trial in a worker as of its last beat: '' when there are several, nil when there is none.
local function on_trial(trial, seen_ms)
  local n, until_ms, claims = string.match(trial or '', '^(%d*)|(%d+)|(.*)$')
  if not n or tonumber(until_ms) <= tonumber(seen_ms or 0) then return nil end
  if n == '' then return n end
  if redis.call('HEXISTS', claims, 's:' .. n) == 1 and redis.call('HEXISTS', claims, 'o:' .. n) == 0 then return n end
  return nil
end

-- Whether another suspect that had run for a shorter time waits, too.
local function gives_way(first, record, in_all_ms, now_ms)
  local shortest_ms, asked_ms, other = string.match(first or '', '^(%d+)|(%d+)|(.*)$')
  return other and other ~= record and tonumber(shortest_ms) < in_all_ms and now_ms - tonumber(asked_ms) < ASKS_WITHIN_MS
end

-- Put a suspect on trial; false when it has to wait until another's is over.
-- limits: shortest trial ms, longest trial ms, how long it waits at most
local function stand_trial(entry, record, claims, n, now_ms, ran_ms, waits_since_ms, limits)
  local worker = redis.call('HMGET', entry, 'trial', 'seen', 'next')
  local in_all_ms = tonumber(redis.call('HGET', record, 'ks') or 0)
  local other, behind = on_trial(worker[1], worker[2]), gives_way(worker[3], record, in_all_ms, now_ms)
  if (other or behind) and now_ms - waits_since_ms < tonumber(limits[3]) then
    redis.call('HSETNX', record, 'y', int(now_ms))
    if not behind then redis.call('HSET', entry, 'next', table.concat({int(in_all_ms), int(now_ms), record}, '|')) end
    return false
  end
  local trial_ms = math.min(math.max(2 * ran_ms, tonumber(limits[1])), tonumber(limits[2]))
  redis.call('HSET', entry, 'trial', table.concat({other and '' or n, int(now_ms + trial_ms), claims}, '|'))
  redis.call('HDEL', record, 'y')
  return true
end
