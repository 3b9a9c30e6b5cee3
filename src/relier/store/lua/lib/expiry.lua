-- ex in a record: the ms of this server's clock after which the task is not to begin any more; el: the life that this
-- is said of. A relier that knows neither begins another life without clearing them.
local function expires_at(record, life, at_ms)
  redis.call('HSET', record, 'ex', int(at_ms), 'el', life)
end

local function expiry_of(ex, el, life)
  return (not el or el == life) and ex
end

-- Why a task that was asked for at that moment is not to run: 'revoked', 'expired', or ''; 'unkept' when its message says
-- that its expiry is kept here ('1'), and it is not.
local function why_not(revoked, ex, says, at_ms)
  if revoked then return 'revoked' end
  if says ~= '1' then return '' end
  if not ex then return 'unkept' end
  return tonumber(at_ms) > tonumber(ex) and 'expired' or ''
end
