-- What a claim finds when it asks for an idempotency key: 'free', 'busy', or 'done' and the result.
local function ask_key(idem)
  local key = redis.call('HMGET', idem, 'v', 'w', 'c', 'q')
  if key[1] then return 'done', key[1] end
  if is_owned(idem, key[2], key[3], key[4]) then return 'busy' end
  return 'free'
end

local function own_key(idem, claims, worker, n, queue)
  redis.call('HSET', idem, 'w', worker, 'c', n, 'q', queue)
  redis.call('HSET', claims, 'k:' .. n, idem)
end

local function expect_room_behind(idem, index, queue)
  expect((parked_list(idem, queue)), 'list')
  expect(index, 'set')
end

-- Let a claimed message wait behind a key until its owner's claim ends. The caller has asked whether there is room.
local function park(idem, index, claims, n, queue, parcel)
  redis.call('RPUSH', (parked_list(idem, queue)), parcel)
  redis.call('HSET', idem, 'p:' .. queue, '1')
  redis.call('SADD', index, idem)
  redis.call('HDEL', claims, n)
end
