-- queue(base, rollout, from): put the letters ARGV[from], ARGV[from + 1], ... (pairs of lane and body) into the outbox.
-- Lanes: 'card' (latest state only), 'urgent' (goes first), 'plain', 'answer' (urgent, in a queue of its own: it goes to
-- one person and shall not wait behind a message that the channel's rate limit holds back).
--
-- letters     hash   id -> body
-- dues        hash   id -> epoch seconds, of letters that were put off
-- out:<r>     zset   ids of a rollout in order; urg:<r> its urgent ones
-- ready       zset   rollout -> turn of the head of out:<r>; urgent: of the head of urg:<r>
-- cards       hash   rollout -> id of its last waiting card
--
-- A turn is the letter's running number, or the moment it was put off to: the numbers are far below epoch seconds, so
-- that `score <= now` means "may go", oldest first, and does not depend on the clocks of those who wrote it.
local function queue(base, owner, from, last)
  for i = from, last, 2 do
    local kind, body, rollout = ARGV[i], ARGV[i + 1], owner
    if kind == 'answer' then
      kind, rollout = 'urgent', owner .. ':answers'
    end
    local lane = base .. 'out:' .. rollout
    local drop = false
    if kind == 'card' then
      -- The head may be on its way with older state; a card further back is drawn later than now and says it all.
      local waiting = redis.call('HGET', base .. 'cards', rollout)
      local rank = waiting and redis.call('ZRANK', lane, waiting)
      drop = rank and rank > 0
    end
    if not drop then
      local number = redis.call('INCR', base .. 'seq')
      local id = string.format('%012d', number)
      redis.call('HSET', base .. 'letters', id, body)
      redis.call('ZADD', lane, number, id)
      if redis.call('ZCARD', lane) == 1 then
        redis.call('ZADD', base .. 'ready', number, rollout)
      end
      if kind == 'card' then
        redis.call('HSET', base .. 'cards', rollout, id)
      elseif kind == 'urgent' then
        local urgent = base .. 'urg:' .. rollout
        redis.call('ZADD', urgent, number, id)
        if redis.call('ZCARD', urgent) == 1 then
          redis.call('ZADD', base .. 'urgent', number, rollout)
        end
      end
    end
  end
end
