-- The four queues of a service are read by groups of consumers. The input's own group, named like the service, works on
-- the requests: it is the lane of wait, delay and lease above. All other groups only keep account of what they have read.

local function queue(s, name)
  local base = s.base .. QUEUE_SUFFIX .. name .. ':'
  return { name = name, items = s[name], base = base, prio = base .. PRIO_SUFFIX,
    note = QUEUE_NOTE_PREFIX .. s.name .. ':' .. name }
end

local function queue_key(k, suffix) return k.base .. suffix end
local function group_key(k, group, suffix) return k.base .. GROUP_SUFFIX .. group .. ':' .. suffix end
local function consumer_key(k, consumer) return k.base .. CONSUMER_SUFFIX .. consumer end
local function window_key(k, consumer) return k.base .. WINDOW_SUFFIX .. consumer end
local function is_own(item) return string.byte(item) == 105 end -- "i..": no request's id begins so
local function name_entry(name, index, item) return name .. '\0' .. string.format('%016d', index) .. '\0' .. item end

-- A new item at the end of a queue. name: its requestId, where a client chose that.
local function add_item(s, k, item, class, name)
  local index = redis.call('HINCRBY', s.seq, k.name, 1)
  redis.call('ZADD', k.items, index, item)
  if class ~= NORMAL then redis.call('ZADD', k.prio, score_of(class, index), item) end
  if name then
    redis.call('ZADD', queue_key(k, NAMED_SUFFIX), 0, name_entry(name, index, item))
    redis.call('HSET', queue_key(k, NAMES_SUFFIX), item, name)
  end
  redis.call('PUBLISH', k.note, 'put ' .. (name or item))
  return index
end

-- A new request, at the end of its class. deadline_in_ms: 0 none; name: the requestId that its client chose, '' none.
-- Returns its index.
local function admit(s, id, class, deadline_in_ms, meta, body, tags, name)
  local index = add_item(s, queue(s, 'input'), id, class, name ~= '' and name)
  redis.call('HSET', record(s, id), 'state', 'queued', 'index', index, 'class', class, 'submitted_ms', now,
    'meta', meta, 'body', body, 'tags', tags)
  if name ~= '' then redis.call('HSET', record(s, id), 'name', name) end
  redis.call('ZADD', s.wait, score_of(class, index), id)
  if s.pull then redis.call('HINCRBY', s.cfg, 'put' .. (class > NORMAL and 1 or 0), 1) end
  if deadline_in_ms > 0 then
    redis.call('HSET', record(s, id), 'deadline_ms', now + deadline_in_ms)
    redis.call('ZADD', s.dl, now + deadline_in_ms, id)
    due(s, now + deadline_in_ms)
  end
  return index
end
