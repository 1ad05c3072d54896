-- ARGV: base, replica, shards held, seconds until a silent replica is gone, 'leave' to go at once.
-- Answers of each replica: its name, the shards it holds, and for how long it has been there without a gap, in ms.
local base, name = ARGV[1], ARGV[2]
local seen, since, held = base .. 'replicas', base .. 'replicas:since', base .. 'replicas:held'
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local gone = redis.call('ZRANGEBYSCORE', seen, '-inf', now_ms - tonumber(ARGV[4]) * 1000)
for _, one in ipairs(redis.call('ZRANGEBYSCORE', seen, '(' .. now_ms + 60000, '+inf')) do
  gone[#gone + 1] = one -- the server's clock was set back, or a replica of another server took over
end
if ARGV[5] == 'leave' then
  gone[#gone + 1] = name
end
for _, one in ipairs(gone) do
  redis.call('ZREM', seen, one)
  redis.call('HDEL', since, one)
  redis.call('HDEL', held, one)
end
if ARGV[5] ~= 'leave' then
  redis.call('ZADD', seen, string.format('%.0f', now_ms), name)
  redis.call('HSETNX', since, name, string.format('%.0f', now_ms))
  redis.call('HSET', held, name, ARGV[3])
end
local answer = {}
for _, one in ipairs(redis.call('ZRANGE', seen, 0, -1)) do
  answer[#answer + 1] = one
  answer[#answer + 1] = redis.call('HGET', held, one) or '0'
  answer[#answer + 1] = string.format('%.0f', now_ms - tonumber(redis.call('HGET', since, one) or now_ms))
end
return answer
