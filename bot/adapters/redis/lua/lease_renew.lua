-- ARGV: base, owner, token, ttl in ms, shards; answers 1, or 0 when it is no longer ours, or the store was given another
-- number of shards meanwhile. A ttl of 0 gives it back and rings.
local lease = redis.call('HMGET', ARGV[1] .. 'lease', 'owner', 'token')
if lease[1] ~= ARGV[2] or lease[2] ~= ARGV[3] then
  return 0
end
if ARGV[4] ~= '0' and other_shards(ARGV[1], ARGV[5]) then
  return 0
end
if ARGV[4] == '0' then
  redis.call('DEL', ARGV[1] .. 'lease')
  redis.call('PUBLISH', ARGV[1] .. 'rings', ':lease')
else
  redis.call('PEXPIRE', ARGV[1] .. 'lease', ARGV[4])
end
return 1
