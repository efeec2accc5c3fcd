-- Webhooks: a request that named one leaves a delivery behind when it ends. Deliveries stand per receiver, so that the
-- backlog of one that does not answer is in nobody's way. Among them, a delivery is called "service id".
-- One function makes the others where they are needed: most ends have no webhook, and would pay for each.
local function webhooks()
  local HOST_MOST, FAILING_MOST = 16, 2 -- deliveries in flight to one receiver; while its last answer was no success
  local HOOK_OUTLIVES_MS = 3600000      -- the record it tells of: so long the sweep has to take it off the lists

  local function room_at(to) return redis.call('SISMEMBER', HOOKS_FAILING, to) == 1 and FAILING_MOST or HOST_MOST end

  -- turn is the only writer of HOOKS: when the receiver has something that may be sent, or has kept something for
  -- longer than its lease. Who could be served now keeps its place in the row; who has been served goes to its end.
  local function turn(to, is_served)
    local head = redis.call('ZRANGE', HOOKS_DUE_PREFIX .. to, 0, 0, 'WITHSCORES')[2]
    local out = redis.call('ZRANGE', HOOKS_OUT_PREFIX .. to, 0, 0, 'WITHSCORES')[2]
    if not head and not out then
      redis.call('ZREM', HOOKS, to)
      redis.call('SREM', HOOKS_FAILING, to)
      return
    end
    local at = out and tonumber(out) or math.huge
    if head and redis.call('ZCARD', HOOKS_OUT_PREFIX .. to) < room_at(to) then at = math.min(at, tonumber(head)) end
    if at <= now then -- turns of one millisecond have an order, too
      local was = not is_served and tonumber(redis.call('ZSCORE', HOOKS, to) or nil)
      at = was and was < now + 1 and was or now + redis.call('HINCRBY', SYS, 'turns', 1) % 1024 / 1024
    end
    redis.call('ZADD', HOOKS, at, to)
  end

  -- Where a delivery may be made now, a message stands in the list, or somebody works who looks again. A message that
  -- was lost is pushed again by the next sweep.
  local function kick_hooks(id)
    local first = redis.call('ZRANGE', HOOKS, 0, 0, 'WITHSCORES')[2]
    if first and tonumber(first) < now + 1 and redis.call('LLEN', QUEUE_HOOKS) == 0 then
      redis.call('LPUSH', QUEUE_HOOKS, hook_message('webhook-' .. id))
    end
  end

  -- In the step that ends a request. hook: the record's field; lives_ms: how long the record lives on.
  local function leave_hook(s, id, state, hook, lives_ms)
    local asked = cjson.decode(hook)
    if asked.answers_only and state ~= 'succeeded' and state ~= 'failed' then return end
    local to = asked.to
    redis.call('HSET', s.hook .. id, 'state', 'pending', 'to', to, 'attempts', 0, 'created_ms', now, 'next_ms', now)
    redis.call('PEXPIRE', s.hook .. id, lives_ms + HOOK_OUTLIVES_MS)
    redis.call('ZADD', s.hooks, redis.call('HINCRBY', s.seq, 'hooks', 1), id)
    redis.call('ZADD', HOOKS_DUE_PREFIX .. to, now, s.name .. ' ' .. id)
    due(s, now + lives_ms)
    turn(to)
    kick_hooks(id)
  end

  -- Due again: after a pause, or afresh for who wants it sent anew.
  local function put_hook(s, id, to, at_ms, is_afresh)
    redis.call('HSET', s.hook .. id, 'state', 'pending', 'next_ms', at_ms)
    if is_afresh then redis.call('HSET', s.hook .. id, 'attempts', 0) end
    redis.call('HDEL', s.hook .. id, 'token', 'again')
    redis.call('ZREM', s.hooks_failed, id)
    redis.call('ZADD', HOOKS_DUE_PREFIX .. to, at_ms, s.name .. ' ' .. id)
  end

  -- Nothing is tried any more, unless somebody asks for it.
  local function give_hook_up(s, id)
    redis.call('HSET', s.hook .. id, 'state', 'failed')
    redis.call('HDEL', s.hook .. id, 'token', 'next_ms')
    redis.call('ZADD', s.hooks_failed, redis.call('ZSCORE', s.hooks, id) or 0, id)
  end

  -- Its record has gone: there is nothing left to tell.
  local function drop_hook(s, id)
    local to = redis.call('HGET', s.hook .. id, 'to')
    redis.call('ZREM', s.hooks, id)
    redis.call('ZREM', s.hooks_failed, id)
    redis.call('DEL', s.hook .. id)
    if to then
      redis.call('ZREM', HOOKS_DUE_PREFIX .. to, s.name .. ' ' .. id)
      redis.call('ZREM', HOOKS_OUT_PREFIX .. to, s.name .. ' ' .. id)
      turn(to)
    end
  end

  return { turn = turn, room_at = room_at, kick = kick_hooks, leave = leave_hook, put = put_hook,
    give_up = give_hook_up, drop = drop_hook }
end
