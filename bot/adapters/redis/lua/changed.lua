-- ARGV: base, place, mark, most entries to read. What has changed since the entry of the log at `place`, which has to be
-- there with the same mark: then all before it is as it was read, for a log that lost its end (a fail-over, a restart)
-- has lost that entry, and one that was wiped, cut, or not written by the holder of the moment, starts anew.
-- Answers {} when that cannot be told and everything has to be read. Else: place and mark of the newest entry read, '1'
-- when there are more, the number of active rollouts, the ids set aside, and for each rollout that changed its id, '1'
-- when it is active, its record and its wake time.
-- Without `place` only the first two are answered, of the newest entry: where a reading of everything begins.
local base, place, mark, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if (redis.call('GET', base .. 'token') or '') ~= (redis.call('GET', base .. 'changes:token') or '') then
  return {}
end
if place == '' then
  local newest = redis.call('XREVRANGE', base .. 'changes', '+', '-', 'COUNT', 1)[1]
  return newest and {newest[1], newest[2][4]} or {}
end
local entries = redis.call('XRANGE', base .. 'changes', place, '+', 'COUNT', most + 1)
if not entries[1] or entries[1][1] ~= place or entries[1][2][4] ~= mark then
  return {}
end
local newest, seen, found = entries[#entries], {}, {}
for i = 2, #entries do
  local id = entries[i][2][2]
  if id ~= '' and not seen[id] then
    seen[id] = true
    local active = redis.call('SISMEMBER', base .. 'active', id) == 1
    found[#found + 1] = id
    found[#found + 1] = active and '1' or ''
    found[#found + 1] = active and redis.call('HGET', base .. 'rollout:' .. id, 'record') or ''
    found[#found + 1] = active and redis.call('ZSCORE', base .. 'wake', id) or ''
  end
end
return {newest[1], newest[2][4], #entries > most and '1' or '', redis.call('SCARD', base .. 'active'),
  redis.call('SMEMBERS', base .. 'quarantined'), found}
