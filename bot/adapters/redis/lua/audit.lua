-- audit(base, rollout, from, last): append the lines ARGV[from..last] to the fleet's stream and to the rollout's.
local function audit(base, from, last)
  for i = from, last, 2 do
    local rollout, line = ARGV[i], ARGV[i + 1]
    redis.call('XADD', base .. 'audit', 'MAXLEN', '~', '10000', '*', 'line', line)
    if rollout ~= '' then
      local own = base .. 'audit:' .. rollout
      redis.call('XADD', own, 'MAXLEN', '~', '1000', '*', 'line', line)
      redis.call('EXPIRE', own, 7776000)
    end
  end
end
