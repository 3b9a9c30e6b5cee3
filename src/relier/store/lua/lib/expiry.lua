-- ex in a record: the ms of this server's clock after which the task is not to begin any more.
-- Why a task that was asked for at that moment is not to run: 'revoked', 'expired', or ''; 'unkept' when its message says
-- that its expiry is kept here ('1'), and it is not.
local function why_not(revoked, ex, says, at_ms)
  if revoked then return 'revoked' end
  if says ~= '1' then return '' end
  if not ex then return 'unkept' end
  return tonumber(at_ms) > tonumber(ex) and 'expired' or ''
end
