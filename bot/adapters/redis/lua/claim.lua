-- ARGV: base, shards; answers {} when this shard may be used with that number, else the number it is in use with, its
-- active rollouts, those set aside, and its letters under way. An idle shard takes the new number.
local base, shards = ARGV[1], ARGV[2]
local known = redis.call('GET', base .. 'shards') or '1'
if known == shards then
  return {}
end
local active = redis.call('SCARD', base .. 'active')
local aside = redis.call('SCARD', base .. 'quarantined')
local letters = redis.call('HLEN', base .. 'letters')
if active + aside + letters > 0 then
  return {known, active, aside, letters}
end
if ARGV[3] == 'set' then
  redis.call('SET', base .. 'shards', shards)
end
return {}
