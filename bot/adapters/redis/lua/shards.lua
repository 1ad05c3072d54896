-- other_shards(base, shards): the number of shards this one was last used with when that is another one, else nil.
-- Nothing written counts as one shard, which needs no mark; an empty store takes the number of whoever comes first.
local function other_shards(base, shards)
  local known = redis.call('GET', base .. 'shards')
  if not known and shards ~= '1' and redis.call('EXISTS', base .. 'active', base .. 'quarantined') == 0 then
    redis.call('SET', base .. 'shards', shards)
    known = shards
  end
  known = known or '1'
  return known ~= shards and known or nil
end
