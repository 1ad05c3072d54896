-- ARGV: base, rollout; answers request ids and requests in order.
local answer = {}
for _, id in ipairs(redis.call('LRANGE', ARGV[1] .. 'in:' .. ARGV[2], 0, -1)) do
  answer[#answer + 1] = id
  answer[#answer + 1] = redis.call('HGET', ARGV[1] .. 'asked:' .. ARGV[2], id) or ''
end
return answer
