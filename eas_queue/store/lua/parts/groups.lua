-- What items mean to the groups that read a queue.

-- After items have left the sink: a service that a full sink held may go on.
local function sink_has_room(s)
  if not s.hold then return end
  touch(s)
  tell_watchers(s)
end

-- Out of the queue, for all groups.
local function drop_item(s, k, item)
  local index = redis.call('ZSCORE', k.items, item)
  if not index then return end
  redis.call('ZREM', k.items, item)
  redis.call('ZREM', k.prio, item)
  local name = redis.call('HGET', queue_key(k, NAMES_SUFFIX), item)
  if name then
    redis.call('ZREM', queue_key(k, NAMED_SUFFIX), name_entry(name, index, item))
    redis.call('HDEL', queue_key(k, NAMES_SUFFIX), item)
  end
  for _, group in ipairs(redis.call('ZRANGE', queue_key(k, GROUPS_SUFFIX), 0, -1)) do
    local held = redis.call('HGET', group_key(k, group, HELD_SUFFIX), item)
    if held then
      local consumer = string.match(held, '^%S+ (%S+)')
      redis.call('HDEL', group_key(k, group, HELD_SUFFIX), item)
      redis.call('ZREM', group_key(k, group, BACK_SUFFIX), item)
      if redis.call('ZREM', window_key(k, consumer), item) == 1 then redis.call('PUBLISH', k.note, 'room ' .. consumer) end
    end
    redis.call('ZREM', group_key(k, group, AHEAD_SUFFIX), item)
  end
  if is_own(item) then redis.call('DEL', s.own .. item) end
end

local function has_tags(tags, filter)
  for pair in string.gmatch(filter, '[^&]+') do
    if not string.find(tags, '&' .. pair .. '&', 1, true) then return false end
  end
  return true
end

local VIEW_FIELDS = { 'tags', 'name', 'submitted_ms', 'finished_ms', 'status_code', 'why' }

-- An item's tags, as "&key=value&..&" with both parts percent-encoded.
local function tags_of(s, k, item)
  if is_own(item) then return redis.call('HGET', s.own .. item, 'tags') or '&' end
  local f = redis.call('HMGET', s.records .. item, unpack(VIEW_FIELDS))
  local tags = f[1] or '&'
  if not f[2] then tags = tags .. 'requestId=' .. item .. '&' end
  tags = tags .. 'ts%40source=' .. (f[3] or '0') .. '&'
  if k.name == 'sink' or k.name == 'sink_rear' then
    tags = tags .. 'ts%40sink=' .. (f[4] or '0') .. '&'
    if f[5] and f[5] ~= '200' then tags = tags .. 'lastCode=' .. f[5] .. '&' end
  elseif f[6] then
    tags = tags .. f[6]
  end
  return tags
end

-- Whether some group that is waited for still needs the item; and whether there is any that it concerns.
local function wanted(s, k, item)
  local groups = redis.call('ZRANGE', queue_key(k, GROUPS_SUFFIX), '(0', '+inf', 'BYSCORE')
  if not groups[1] then return false, false end
  local index, concerns, tags = tonumber(redis.call('ZSCORE', k.items, item)), false, nil
  local prio = redis.call('ZSCORE', k.prio, item)
  local class = prio and 255 - math.floor(prio / LEVELS) or NORMAL
  for _, group in ipairs(groups) do
    local f = redis.call('HMGET', group_key(k, group, AT_SUFFIX), 'filter', 'c' .. class, 'start')
    local filter = f[1] or ''
    if filter ~= '' then tags = tags or tags_of(s, k, item) end
    if filter == '' or has_tags(tags, filter) then
      concerns = true
      if redis.call('HEXISTS', group_key(k, group, HELD_SUFFIX), item) == 1 then return true, true end
      if index > number(f[2] or f[3]) and not redis.call('ZSCORE', group_key(k, group, AHEAD_SUFFIX), item) then
        return true, true
      end
    end
  end
  return false, concerns
end

-- A request that ends leaves the input, unless a tap has not read it yet; returns whether it stays. A brief one does not.
local function leave_input(s, id, class, name, is_brief)
  local k = queue(s, 'input')
  if redis.call('EXISTS', queue_key(k, GROUPS_SUFFIX)) == 1 then
    if not is_brief and wanted(s, k, id) then
      redis.call('ZADD', s.kept, now + s.ttl_ms, id)
      due(s, now + s.ttl_ms)
      return true
    end
    drop_item(s, k, id)
    return false
  end
  if name then
    redis.call('ZREM', queue_key(k, NAMED_SUFFIX), name_entry(name, redis.call('ZSCORE', k.items, id), id))
    redis.call('HDEL', queue_key(k, NAMES_SUFFIX), id)
  end
  redis.call('ZREM', k.items, id)
  if class ~= NORMAL then redis.call('ZREM', k.prio, id) end
  return false
end

-- A request that a watcher of the lane holds is no longer in its window.
local function free_window(s, id)
  local holder = redis.call('HGET', record(s, id), 'holder')
  if not holder then return nil end
  local k = queue(s, 'input')
  redis.call('HDEL', record(s, id), 'holder')
  redis.call('ZREM', window_key(k, holder), id)
  redis.call('PUBLISH', k.note, 'room ' .. holder)
  return holder
end
