-- ARGV: base, bucket, limit, window_s, now; takes one token or answers the seconds to wait for the next.
local key = ARGV[1] .. 'bucket:' .. ARGV[2]
local limit, window, now = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local rate = limit / window
local held = redis.call('HMGET', key, 'tokens', 'at')
local at = tonumber(held[2] or now)
if at > now + window then
  at = now -- the clock was set back: the bucket shall not wait for the old time to come round
end
local tokens = math.min(limit, tonumber(held[1] or limit) + math.max(0, now - at) * rate)
local wait = 0
if tokens < 1 - 1e-9 then
  wait = (1 - tokens) / rate
else
  tokens = tokens - 1
end
redis.call('HSET', key, 'tokens', string.format('%.17g', tokens), 'at', string.format('%.17g', math.max(at, now)))
redis.call('PEXPIRE', key, math.ceil(window * 2000))
return string.format('%.17g', wait)
