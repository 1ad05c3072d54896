-- ARGV: base, rollout, request ids...
local base, rollout = ARGV[1], ARGV[2]
for i = 3, #ARGV do
  redis.call('HDEL', base .. 'asked:' .. rollout, ARGV[i])
  redis.call('LREM', base .. 'in:' .. rollout, 0, ARGV[i])
end
if redis.call('LLEN', base .. 'in:' .. rollout) == 0 then
  redis.call('SREM', base .. 'waiting', rollout)
end
