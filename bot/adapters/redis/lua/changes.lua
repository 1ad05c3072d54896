-- changes(base, rollout, mark): add to the log of changes that a rollout's record, or its place among the active, is not
-- what it was. `mark` makes the entry unlike any other that could have the same number.
--
-- changes        stream  rollout and mark of each change, in order
-- changes:token  string  the newest token given out by a version that writes the log
local function changes(base, rollout, mark)
  redis.call('XADD', base .. 'changes', 'MAXLEN', '~', '20000', '*', 'of', rollout, 'mark', mark)
end

-- changes_under(base, previous, token): the log under a new token. It begins anew when the lease before was of a version
-- that writes none.
local function changes_under(base, previous, token)
  if (redis.call('GET', base .. 'changes:token') or '0') ~= previous then
    redis.call('DEL', base .. 'changes')
  end
  changes(base, '', token)
  redis.call('SET', base .. 'changes:token', token)
end
