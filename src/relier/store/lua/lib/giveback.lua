-- Move one claim of a dead process to where it continues. The caller has checked that it is dead.
-- q: list, replay, scheduled, claims, bell, events (key names)
-- rules: blame ('b' its own death, 'i' its neighbours died too), sole (the claim that did it, or nil),
--        died_ms (when its worker did, or nil), max_resurrections, max_interruptions,
--        record (key template), ttl_ms, worker, entry (its key), reason, exhausted_b, exhausted_i (outcomes, made by the caller),
--        list (where resurrected messages go, or '')
-- returns 'unstarted' | 'replay' | 'requeued' | 'scheduled' | 'exhausted' | 'gone' | 'stuck', task id (stuck: why), returns so far
local function to_replay(q, replays, generation, root, outcome, parcel)
  redis.call('RPUSH', q.replay, replay_element(replays, generation, root, outcome, parcel))
  ring(q.bell)
end

-- What is wrong with a key where a claim may have to go, or with its record, or nil. Asked before anything is written: an error after the
-- blame would blame it again with each attempt.
local function no_place(q, suffix, recovery, record)
  return misfit(q.list .. suffix, 'list') or misfit(q.replay, 'list') or misfit(q.scheduled, 'zset')
    or recovery ~= '' and misfit(recovery .. suffix, 'list') or record and misfit(record, 'hash') or nil
end

local function give_back(q, n, rules)
  local got = redis.call('HMGET', q.claims, n, 's:' .. n, 'o:' .. n, 'k:' .. n)
  local parcel, started, saved, key = got[1], got[2], got[3], got[4]
  if not parcel then return 'gone', '', 0 end
  local fence, attempt, _, id = run_of(started)
  id = id or ''
  local record = string.format(rules.record, id)
  local stuck = no_place(q, string.match(parcel, '^[^|]*'), rules.list, started and record)
  if stuck then return 'stuck', stuck, 0 end
  local verdict, returns, ended = 'unstarted', 0

  if saved then
    -- Its outcome stands; only what follows from it must be sent again.
    local replays, generation, root, outcome = committed(saved)
    to_replay(q, int(tonumber(replays) + 1), generation, root, outcome, parcel)
    verdict = 'replay'
  elseif not started then
    if rules.unstarted_delay_ms then
      -- A message that kills whoever unpacks it must not do so at full speed.
      redis.call('ZADD', q.scheduled, int(now_us() / 1000 + rules.unstarted_delay_ms), parcel)
      ring(q.bell)
    else
      to_head(q.list, q.bell, parcel)
    end
  else
    local how = rules.sole == n and 'b' or rules.blame
    redis.call('HINCRBY', record, how, 1)
    local fields = redis.call('HMGET', record, 'b', 'i', 'm', 'g', 'rt', 'st', 'k', 'n', 'at', 'due', 'f')
    local deaths, interruptions = tonumber(fields[1] or 0), tonumber(fields[2] or 0)
    returns = deaths + interruptions
    local most = tonumber(fields[3] or rules.max_resurrections)
    -- What made it a suspect was its own doing, if it is found out in the end.
    local suspect, unnoticed = suspects(deaths - 1, interruptions, most)
    if rules.died_ms then
      local ran_ms = math.max(rules.died_ms - tonumber(fields[6] or 0), 0)
      redis.call('HSET', record, 'k', int(math.min(ran_ms, tonumber(fields[7] or ran_ms))))
      redis.call('HINCRBY', record, 'ks', int(ran_ms))
    end
    redis.call('PEXPIRE', record, rules.ttl_ms)
    if how == 'b' and deaths + (suspect and unnoticed or 0) > most or how == 'i' and interruptions > rules.max_interruptions then
      local outcome = rules['exhausted_' .. how]
      redis.call('HSET', record, 's', 'c', 'c', '')
      to_replay(q, '0', fields[4] or '0', fields[5] or '', outcome, parcel)
      verdict, ended = 'exhausted', fields
    else
      redis.call('HSET', record, 's', 'q', 'c', '')
      if returns == 1 then
        local target = rules.list ~= '' and rules.list or q.list
        to_head(target, target == q.list and q.bell or rules.bell, parcel)
        verdict = 'requeued'
      else
        -- 1, 2, 4, 8 s, each up to half as much again: suspects that died together drift apart. Those of one
        -- batch have consecutive numbers, so these are scattered first.
        local base_ms = 1000 * 2 ^ math.min(returns - 2, 3)
        local due_ms = now_us() / 1000 + base_ms * (1 + (tonumber(n) % 65536 * 7919 % 512) / 1024)
        redis.call('ZADD', q.scheduled, int(due_ms), parcel)
        ring(q.bell)
        verdict = 'scheduled'
      end
    end
  end
  redis.call('HDEL', q.claims, n, 's:' .. n, 'o:' .. n, 'k:' .. n)
  if key then let_go(key, rules.worker, n, '', '') end
  local kind = verdict == 'unstarted' and 'returned' or verdict
  local at = note(record, rules.entry, q.events, kind, id, rules.worker, n, rules.reason, fence, attempt)
  if ended then tally_end(q.events, at, 'FAILURE', ended, 8) end
  return verdict, id, returns
end
