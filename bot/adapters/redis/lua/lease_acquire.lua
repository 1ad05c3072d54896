-- ARGV: base, owner, ttl in ms, shards; answers the token and the one before it ('0' for none), {} when another holds
-- it, or {'shards', n} when the store is in use with n shards.
-- Tokens rise with every acquisition. The server's clock keeps them rising when a fail-over or a wiped Redis lost the
-- counter, so that no two holders ever have the same one.
local base = ARGV[1]
local other = other_shards(base, ARGV[4])
if other then
  return {'shards', other}
end
local owner = redis.call('HGET', base .. 'lease', 'owner')
if owner and owner ~= ARGV[2] then
  return {}
end
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local previous = redis.call('GET', base .. 'token') or '0'
local token = math.max(tonumber(previous) + 1, now_us)
local text = string.format('%.0f', token)
changes_under(base, previous, text)
redis.call('SET', base .. 'token', text)
redis.call('HSET', base .. 'lease', 'owner', ARGV[2], 'token', text)
redis.call('PEXPIRE', base .. 'lease', ARGV[3])
return {text, previous}
