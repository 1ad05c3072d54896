-- ARGV: base, id, record, revision, route, service, wake_at or '', n_letters, token, save_id, final phase or '',
--       ended_at, letters..., audit...
-- Record, wake time, audit and outbox in one step, by the holder of the newest token. A repeated save_id is success,
-- also when a few others were taken since: one that its sender gave up can arrive after those that followed it.
local base, id, record, revision, route, service = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local wake_at, token, save_id, phase, ended_at = ARGV[7], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local kept_of_fleet, kept_of_service, kept_s, kept_ids = 500, 50, 7776000, 8
local key = base .. 'rollout:' .. id
local known = redis.call('HMGET', key, 'save', 'phase', 'revision')
local ids = {save_id}
for id_before in string.gmatch(known[1] or '', '%S+') do
  if id_before == save_id then
    return {'ok'}
  end
  if #ids < kept_ids then
    ids[#ids + 1] = id_before
  end
end
local newest = redis.call('GET', base .. 'token') or '0'
if newest ~= token then
  return {'lease', 'the store knows token ' .. newest .. ', not ' .. token}
end
if known[2] and known[2] ~= '' and known[2] ~= phase then
  return {'conflict', 'rollout ' .. id .. ' has ended as ' .. known[2]}
end
if known[3] and tonumber(known[3]) > tonumber(revision) then
  return {'conflict', 'rollout ' .. id .. ' is at revision ' .. known[3] .. ', not ' .. revision}
end

redis.call('HSET', key, 'record', record, 'revision', revision, 'phase', phase, 'route', route, 'service', service,
  'save', table.concat(ids, ' '))
redis.call('SREM', base .. 'quarantined', id)

local function forget(name)
  local gone = base .. 'rollout:' .. name
  if not redis.call('ZSCORE', base .. 'finished:' .. (redis.call('HGET', gone, 'service') or ''), name)
    and not redis.call('ZSCORE', base .. 'finished', name) then
    redis.call('DEL', gone, base .. 'audit:' .. name)
  end
end

local function keep_newest(index, count)
  local surplus = redis.call('ZRANGE', index, 0, -1 - count)
  for _, name in ipairs(surplus) do
    redis.call('ZREM', index, name)
    forget(name)
  end
end

if phase == '' then
  redis.call('SADD', base .. 'active', id)
  redis.call('HSETNX', base .. 'routes', route, id)
  if wake_at == '' then
    redis.call('ZREM', base .. 'wake', id)
  else
    redis.call('ZADD', base .. 'wake', wake_at, id)
  end
else
  redis.call('SREM', base .. 'active', id)
  redis.call('ZREM', base .. 'wake', id)
  if redis.call('HGET', base .. 'routes', route) == id then
    redis.call('HDEL', base .. 'routes', route)
  end
  redis.call('EXPIRE', key, kept_s)
  local of_service = base .. 'finished:' .. service
  redis.call('ZADD', base .. 'finished', ended_at, id)
  redis.call('ZADD', of_service, ended_at, id)
  redis.call('EXPIRE', of_service, kept_s)
  redis.call('ZREMRANGEBYSCORE', base .. 'finished', '-inf', tonumber(ended_at) - kept_s)
  keep_newest(of_service, kept_of_service)
  keep_newest(base .. 'finished', kept_of_fleet)
end

local after = 13 + 2 * tonumber(ARGV[8])
queue(base, id, 13, after - 1)
audit(base, after, #ARGV)
changes(base, id, save_id)
return {'ok'}
