-- ARGV: base, scope; answers fields (`<scope>|<id>`) and freezes lifted.
local lifted = {}
local all = redis.call('HGETALL', ARGV[1] .. 'freezes')
for i = 1, #all, 2 do
  if string.sub(all[i], 1, #ARGV[2] + 1) == ARGV[2] .. '|' then
    redis.call('HDEL', ARGV[1] .. 'freezes', all[i])
    lifted[#lifted + 1] = all[i]
    lifted[#lifted + 1] = all[i + 1]
  end
end
return lifted
