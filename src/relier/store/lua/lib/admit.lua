-- Whether a message may run, by what its record says (r: s, g, q, w, c, b, i, a, rt, l, and its token):
-- 'run', 'drop' (a copy), or 'busy' (an earlier generation still runs); and the generation it counts as.
-- A record that has ended and does not know the token is of a former life: r.state is then nil.
local function admit(r, generation, claims_template)
  local state, life = r[1], r[10] or '1'
  local known_life, known_generation = recall(r[11])
  local held, asked = tonumber(r[2] or 0), known_generation or tonumber(generation)
  local verdict = 'run'
  if state and known_life and known_life ~= life then
    verdict = 'drop'
  elseif state == 'e' or state == 'd' then
    if known_life then verdict = 'drop' else state = nil end
  elseif state == 'c' or state == 'w' then
    -- Committed: its outcome is in a claim or in the replay list. Waiting: a later generation comes from elsewhere.
    if asked <= held then verdict = 'drop' end
  elseif state == 'r' then
    local holder = string.format(claims_template, r[3], r[4])
    if redis.call('HEXISTS', holder, r[5]) == 1 then
      verdict = asked > held and 'busy' or 'drop'
    elseif asked < held then
      verdict = 'drop'
    end
  elseif state == 'q' and asked < held then
    verdict = 'drop'
  end
  return verdict, asked, state, known_life
end
