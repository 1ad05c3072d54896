-- ARGV: base, id, record, revision, route, service, wake_at, n_letters, shards, letters..., audit...
-- Takes id and route together. The same creation repeated is success.
local base, id, record, route = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local key = base .. 'rollout:' .. id
local other = other_shards(base, ARGV[9])
if other then
  return {'shards', other}
end
local origin = redis.sha1hex(record)
if redis.call('EXISTS', key) == 1 then
  if redis.call('HGET', key, 'origin') == origin then
    return {'ok'}
  end
  return {'conflict', 'rollout ' .. id .. ' exists already'}
end
local holder = redis.call('HGET', base .. 'routes', route)
if holder then
  return {'route', holder}
end
redis.call('HSET', key, 'record', record, 'revision', ARGV[4], 'phase', '', 'route', route, 'service', ARGV[6],
  'origin', origin)
redis.call('HSET', base .. 'routes', route, id)
redis.call('SADD', base .. 'active', id)
redis.call('ZADD', base .. 'wake', ARGV[7], id)
local after = 10 + 2 * tonumber(ARGV[8])
queue(base, id, 10, after - 1)
audit(base, after, #ARGV)
changes(base, id, origin)
return {'ok'}
