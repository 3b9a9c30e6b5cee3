-- A committed claim keeps "<replays>|<generation>|<root>|<outcome>"; in the replay list the outcome's length stands
-- before it and the parcel behind, so that no script needs to decode either.
local function committed(value)
  return string.match(value, '^(%d+)|(%-?%d+)|([^|]*)|(.*)$')
end

local function replay_element(replays, generation, root, outcome, parcel)
  return table.concat({replays, generation, root, #outcome, outcome .. parcel}, '|')
end

local function read_replay(element)
  local replays, generation, root, size, rest = string.match(element, '^(%d+)|(%-?%d+)|([^|]*)|(%d+)|(.*)$')
  local outcome = string.sub(rest, 1, tonumber(size))
  return table.concat({replays, generation, root, outcome}, '|'), string.sub(rest, tonumber(size) + 1)
end
