#!lua flags=allow-oom,no-writes
-- rights: say what of some commands the calling user may run. Every user may ask for himself, and nothing is run.
-- KEYS  none: what is asked about is not touched
-- ARGV  for each question: how many words, then the words of the command
-- returns for each question 1 allowed, 0 refused, -1 the server does not know the command
local answers, i = {}, 1
while i <= #ARGV do
  local count = tonumber(ARGV[i])
  local known, allowed = pcall(redis.acl_check_cmd, unpack(ARGV, i + 1, i + count))
  answers[#answers + 1] = not known and -1 or allowed and 1 or 0
  i = i + 1 + count
end
return answers
