-- ARGV: base, rollout, request id, request
local base, rollout = ARGV[1], ARGV[2]
if redis.call('HSETNX', base .. 'asked:' .. rollout, ARGV[3], ARGV[4]) == 1 then
  redis.call('RPUSH', base .. 'in:' .. rollout, ARGV[3])
  redis.call('SADD', base .. 'waiting', rollout)
end
redis.call('PUBLISH', base .. 'rings', rollout)
