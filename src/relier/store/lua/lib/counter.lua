-- Which of a worker's counters an end goes into.
local COUNTERS = {FAILURE = 'failed', REVOKED = 'revoked', EXPIRED = 'expired'}
local function counter(state)
  return COUNTERS[state] or 'done'
end
