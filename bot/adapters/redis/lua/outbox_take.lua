-- ARGV: base, now, limit; answers ids and bodies: the first urgent letter of each rollout, then the head of each queue.
local base, now, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local answer, taken = {}, {}
for _, lane in ipairs({{'urgent', 'urg:'}, {'ready', 'out:'}}) do
  for _, rollout in ipairs(redis.call('ZRANGEBYSCORE', base .. lane[1], '-inf', now, 'LIMIT', 0, limit)) do
    local id = redis.call('ZRANGE', base .. lane[2] .. rollout, 0, 0)[1]
    if id and not taken[id] and #answer < 2 * limit then
      taken[id] = true
      answer[#answer + 1] = id
      answer[#answer + 1] = redis.call('HGET', base .. 'letters', id) or ''
    end
  end
end
return answer
