-- ARGV: base, 'in' or 'out', id. Only moves what is still there: it may have ended meanwhile.
local base, way, id = ARGV[1], ARGV[2], ARGV[3]
if way == 'in' then
  if redis.call('SMOVE', base .. 'active', base .. 'quarantined', id) == 1 then
    redis.call('ZREM', base .. 'wake', id)
    changes(base, id, way)
  end
elseif redis.call('SMOVE', base .. 'quarantined', base .. 'active', id) == 1 then
  redis.call('ZADD', base .. 'wake', 0, id)
  changes(base, id, way)
end
