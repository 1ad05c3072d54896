-- ARGV: base, ids...; answers record and wake time of each, '' for what is missing.
local answer = {}
for i = 2, #ARGV do
  answer[#answer + 1] = redis.call('HGET', ARGV[1] .. 'rollout:' .. ARGV[i], 'record') or ''
  answer[#answer + 1] = redis.call('ZSCORE', ARGV[1] .. 'wake', ARGV[i]) or ''
end
return answer
