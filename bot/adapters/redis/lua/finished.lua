-- ARGV: base, index, limit; answers id and record, newest first.
local answer = {}
for _, id in ipairs(redis.call('ZREVRANGE', ARGV[1] .. ARGV[2], 0, tonumber(ARGV[3]) - 1)) do
  local record = redis.call('HGET', ARGV[1] .. 'rollout:' .. id, 'record')
  if record then
    answer[#answer + 1] = id
    answer[#answer + 1] = record
  end
end
return answer
