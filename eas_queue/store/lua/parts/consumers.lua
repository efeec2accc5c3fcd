-- What serves the consumers of queues.
-- A group or user is percent-encoded, so that neither holds a blank, a colon or a slash; consumer = group/user.

local HELD_BY_WATCHER_MS = 315360000000 -- no lease: a watcher holds it until it commits or leaves
local LEFT_MS = 3600000                 -- how long a consumer that has left is still listed
local GROUPS_MOST = 256                 -- of one queue: each commit asks all of them

local function group_of(consumer) return string.match(consumer, '^[^/]*') end
local function is_lane(s, k, group) return k.name == 'input' and group == s.name end

local function score_in(k, item, index)
  return tonumber(redis.call('ZSCORE', k.prio, item)) or score_of(NORMAL, tonumber(index))
end

local function split(held)
  local n, consumer, code, reason = string.match(held, '^(%S+) (%S+) (%S+) (%S+)$')
  return tonumber(n), consumer, code, reason
end

-- index, tags, data and the headers that tell its type, as JSON: of who put it there, else of the answer.
local function view(s, k, item, with_data)
  local index = redis.call('ZSCORE', k.items, item)
  local data, kind = '', ''
  if is_own(item) then
    local f = redis.call('HMGET', s.own .. item, 'type', with_data and 'data' or 'none')
    data, kind = f[2] or '', f[1] or ''
  elseif k.name == 'sink' or k.name == 'sink_rear' then
    local f = redis.call('HMGET', record(s, item), 'from_target', 'headers', with_data and 'result' or 'none', 'error')
    if f[1] == '1' then data, kind = f[3] or '', f[2] or '' elseif with_data then data = f[4] or '' end
  elseif with_data then
    data = redis.call('HGET', record(s, item), 'body') or ''
  end
  return { tonumber(index), tags_of(s, k, item), data, kind }
end

-- ------------------------------------------------------------------------------------------------- groups
-- No group waits for the item any more. is_refused: because it was delivered too often.
local function done_with(s, k, item, is_refused)
  if k.name ~= 'input' or is_own(item) then
    drop_item(s, k, item)
    sink_has_room(s)
    return
  end
  local state = redis.call('HGET', record(s, item), 'state')
  if state == 'queued' or state == 'running' then -- the lane decides, unless nobody works in it
    if s.pull and state == 'queued' and is_refused then
      fail_request(s, item, 'Refused', 'its consumers were given it too often')
    elseif s.pull and state == 'queued' then
      consume_request(s, item, state)
    end
    return
  end
  redis.call('ZREM', s.kept, item)
  drop_item(s, k, item)
  if state == 'succeeded' then redis.call('HDEL', record(s, item), 'body') end
end

-- The group is done with an item that it held; returns whether it did hold it. is_known: who serves the consumer knows.
local function commit_item(s, k, group, item, is_known, is_refused)
  local held_key = group_key(k, group, HELD_SUFFIX)
  local held = redis.call('HGET', held_key, item)
  if not held then return false end
  local _, consumer = split(held)
  redis.call('HDEL', held_key, item)
  redis.call('ZREM', group_key(k, group, BACK_SUFFIX), item)
  if redis.call('ZREM', window_key(k, consumer), item) == 1 then
    redis.call('HSET', consumer_key(k, consumer), 'seen', now)
    if not is_known then redis.call('PUBLISH', k.note, 'room ' .. consumer) end
  end
  local index = redis.call('ZSCORE', k.items, item)
  if not index then return true end
  -- This group itself wants it no more, though it has not read so far: one of its consumers began further on.
  local class = 255 - math.floor(score_in(k, item, index) / LEVELS)
  local at = redis.call('HMGET', group_key(k, group, AT_SUFFIX), 'c' .. class, 'start', 'n')
  if tonumber(index) > number(at[1] or at[2]) then
    redis.call('ZADD', group_key(k, group, AHEAD_SUFFIX), index, item)
    if number(at[3]) == 0 then redis.call('PEXPIRE', group_key(k, group, AHEAD_SUFFIX), s.ttl_ms) end
  end
  if not wanted(s, k, item) then done_with(s, k, item, is_refused) end
  return true
end

-- Too many deliveries: to the rear of its queue. A tap of the input only stops asking for it, unless nobody but taps works
-- on the request.
local function bury(s, k, group, item)
  if k.name == 'input' then return commit_item(s, k, group, item, false, true) end
  if k.name == 'sink' then
    local rear = queue(s, 'sink_rear')
    local name = redis.call('HGET', queue_key(k, NAMES_SUFFIX), item)
    local content = is_own(item) and redis.call('HGETALL', s.own .. item)
    drop_item(s, k, item)
    if content and content[1] then
      redis.call('HSET', s.own .. item, unpack(content))
      redis.call('PEXPIRE', s.own .. item, s.ttl_ms)
    end
    list_ended(s, 'sink_rear', item, NORMAL, name)
    due(s, now + s.ttl_ms)
    sink_has_room(s)
  else
    drop_item(s, k, item) -- a rear has none
  end
end

-- An item that a consumer held waits again, before all that the group has not read. counts: the delivery does; was_given: as
-- above, where the groups do the work.
local function give_back(s, k, group, item, counts, code, reason, was_given)
  local held_key = group_key(k, group, HELD_SUFFIX)
  local held = redis.call('HGET', held_key, item)
  if not held then return end
  local n, consumer, old_code, old_reason = split(held)
  local own = s.pull and k.name == 'input' and redis.call('HGET', record(s, item), 'attempts_most')
  if not counts and not (was_given and own == '1') then n = n - 1 end
  redis.call('ZREM', window_key(k, consumer), item)
  redis.call('HSET', held_key, item,
    n .. ' ' .. consumer .. ' ' .. (code or old_code) .. ' ' .. (reason or old_reason))
  redis.call('ZADD', group_key(k, group, BACK_SUFFIX),
    score_in(k, item, redis.call('ZSCORE', k.items, item)), item)
  if n >= attempts_most(s, own) then bury(s, k, group, item) end
end

-- What a refusal without a code is noted as; '-' stands for no refusal.
local NO_CODE = '_'

-- What an item that was refused tells by its tags.
local function refusal_tags(code, reason)
  return (code ~= NO_CODE and 'lastCode=' .. code .. '&' or '') .. (reason ~= '-' and 'lastReason=' .. reason .. '&' or '')
end

-- A consumer has gone. What it held goes back; only the first of it is counted as delivered, because consumers work in
-- order: the rest of a window must not become dead letters by the death of the one that works on its head.
local function release(s, k, consumer)
  local group, key = group_of(consumer), consumer_key(k, consumer)
  local f = redis.call('HMGET', key, 'process', 'token')
  if not f[2] then return end
  for i, item in ipairs(redis.call('ZRANGE', window_key(k, consumer), 0, -1)) do
    if is_lane(s, k, group) then
      hand_back(s, item, i == 1, 'WatcherLost', 'the watcher that held it has gone', nil, true)
    else
      give_back(s, k, group, item, i == 1, nil, nil, true)
    end
  end
  redis.call('DEL', window_key(k, consumer))
  redis.call('HDEL', key, 'token', 'process')
  redis.call('PEXPIRE', key, LEFT_MS)
  redis.call('ZADD', queue_key(k, CONSUMERS_SUFFIX), now, consumer)
  due(s, now + LEFT_MS)
  redis.call('SREM', WATCHES_PREFIX .. f[1], s.name .. ' ' .. k.name .. ' ' .. consumer)
  if not is_lane(s, k, group) and redis.call('HINCRBY', group_key(k, group, AT_SUFFIX), 'n', -1) <= 0 then
    redis.call('ZADD', queue_key(k, GROUPS_SUFFIX), now, group)
    for _, suffix in ipairs({ AT_SUFFIX, HELD_SUFFIX, BACK_SUFFIX, AHEAD_SUFFIX }) do
      redis.call('PEXPIRE', group_key(k, group, suffix), s.ttl_ms)
    end
    due(s, now + 60000)
  end
  redis.call('PUBLISH', k.note, 'room ' .. group)
  redis.call('PUBLISH', k.note, 'room ' .. consumer) -- should its process live: it must join again
end

-- Where it was is forgotten: when it comes back, it reads from the head.
local function forget_group(k, group)
  redis.call('ZREM', queue_key(k, GROUPS_SUFFIX), group)
  for _, suffix in ipairs({ AT_SUFFIX, HELD_SUFFIX, BACK_SUFFIX, AHEAD_SUFFIX }) do
    redis.call('DEL', group_key(k, group, suffix))
  end
end

-- What a client removes: an item of the input is a request, and ends.
local function remove_item(s, k, item, why)
  if k.name == 'input' then
    local state = redis.call('HGET', record(s, item), 'state')
    if state == 'queued' or state == 'running' then
      cancel_request(s, item, state, why)
      if not redis.call('ZSCORE', k.items, item) then return end
    end
    redis.call('ZREM', s.kept, item)
  end
  drop_item(s, k, item)
end
