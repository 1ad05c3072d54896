-- ARGV: base, rollout, id, [until, body]. Without `until` the letter goes; with it the letter is put off.
local base, rollout, id = ARGV[1], ARGV[2], ARGV[3]
if #ARGV == 3 then
  redis.call('HDEL', base .. 'letters', id)
  redis.call('HDEL', base .. 'dues', id)
  redis.call('ZREM', base .. 'out:' .. rollout, id)
  redis.call('ZREM', base .. 'urg:' .. rollout, id)
elseif redis.call('HEXISTS', base .. 'letters', id) == 1 then
  redis.call('HSET', base .. 'letters', id, ARGV[5])
  redis.call('HSET', base .. 'dues', id, ARGV[4])
end
for _, lane in ipairs({{'urgent', 'urg:'}, {'ready', 'out:'}}) do
  local head = redis.call('ZRANGE', base .. lane[2] .. rollout, 0, 0)[1]
  if head then
    redis.call('ZADD', base .. lane[1], redis.call('HGET', base .. 'dues', head) or tonumber(head), rollout)
  else
    redis.call('ZREM', base .. lane[1], rollout)
  end
end
if redis.call('EXISTS', base .. 'out:' .. rollout) == 0 then
  redis.call('HDEL', base .. 'cards', rollout)
end
