#!lua flags=allow-oom
-- with items, groups, hooks, ends, outcomes, consumers
-- Give the consumers of one group that are connected to one process what they have room for, best first: higher priority,
-- then lower index. Each item goes to the one with the most room. What they have had, with auto commit, ends before.
-- Idempotent by caller and nonce.
-- ARGV[1] service  [2] queue  [3] group  [4] caller  [5] nonce  [6] items at most  [7] bytes at most, but one item at least
-- ARGV[8..] per consumer: its name, token, how many items it has had, those
-- RETURNS {0: there is nothing more for these, 1: there may be, 2: others of the group may have room for more;
-- rows of {consumer's number here, item, index, tags, data, type}, numbers of consumers that are not there any more and must
-- join again, numbers of those that have no room}
local s, group, caller, nonce = service(ARGV[1]), ARGV[3], ARGV[4], ARGV[5]
local k, most, bytes_most = queue(s, ARGV[2]), tonumber(ARGV[6]), tonumber(ARGV[7])
local lane = is_lane(s, k, group)
local users, by_name, lost, full, rows, bytes, looks = {}, {}, {}, {}, {}, 0, 500
local at_key, held_key = group_key(k, group, AT_SUFFIX), group_key(k, group, HELD_SUFFIX)
local back_key, ahead_key = group_key(k, group, BACK_SUFFIX), group_key(k, group, AHEAD_SUFFIX)
local lines = { nonce }

local at = 8
local position = 0
while at <= #ARGV do
  position = position + 1
  local u = { number = position, name = ARGV[at], key = consumer_key(k, ARGV[at]), window_key = window_key(k, ARGV[at]) }
  local count = tonumber(ARGV[at + 2])
  local f = redis.call('HMGET', u.key, 'token', 'window', 'auto', 'bare', 'from', 'stopped')
  if f[1] == ARGV[at + 1] then
    for i = at + 3, at + 2 + count do
      if not lane then commit_item(s, k, group, ARGV[i], true)
      elseif redis.call('HGET', record(s, ARGV[i]), 'holder') == u.name then consume_request(s, ARGV[i], 'running') end
    end
    u.from, u.with_data = tonumber(f[5]), f[4] ~= '1'
    local held = redis.call('ZCARD', u.window_key)
    u.room = f[3] == '1' and (held == 0 and most or 0) or number(f[2]) - held
    if f[6] then u.room = 0 end
    if u.room > 0 then users[#users + 1] = u end
    by_name[u.name] = u
  else
    lost[#lost + 1] = position
  end
  at = at + 3 + count
end

local function deliver(u, item, extra)
  local row = view(s, k, item, u.with_data)
  if extra then row[2] = row[2] .. extra end
  rows[#rows + 1] = { u.number, item, unpack(row) }
  bytes = bytes + #row[3]
  u.last, u.room = row[1], u.room - 1
  lines[#lines + 1] = u.name .. ' ' .. item
end

-- The answer to this call was lost on its way: what it gave is given again, and nothing else.
local kept = redis.call('GET', CALL_PREFIX .. caller)
if kept and string.sub(kept, 1, #nonce) == nonce then
  for name, item in string.gmatch(string.sub(kept, #nonce + 1), '\n(%S+) (%S+)') do
    local u = by_name[name]
    if u and redis.call('ZSCORE', u.window_key, item) then deliver(u, item) end
  end
  return { 1, rows, lost, {} }
end

-- ---------------------------------------------------------------------------------------------------- the lane
local function next_request(u)
  if s.paused or (not s.pull and running(s) >= s.cap) or is_held(s) then return nil end
  local low = 0
  while looks > 0 do
    looks = looks - 1
    local head = redis.call('ZRANGE', s.wait, string.format('%d', low), '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    if not head[1] then return nil end
    local id, score = head[1], tonumber(head[2])
    local is_early = score % LEVELS < u.from
    local f = is_early
      or redis.call('HMGET', record(s, id), 'attempt', 'deadline_ms', 'lease_seq', 'events', 'index', 'refused_by')
    if is_early then
      low = score_of(255 - math.floor(score / LEVELS), math.min(u.from, LEVELS)) -- the first of its class for this one
    elseif number(f[2]) > 0 and number(f[2]) <= now then
      expire(s, id)
    elseif f[6] == u.name and #users > 1 then -- first for the others
      u.has_refused, low = true, score + 1
    else
      local attempt, lease_seq = number(f[1]) + 1, number(f[3]) + 1
      redis.call('ZREM', s.wait, id)
      redis.call('ZREM', s.dl, id)
      if f[6] then redis.call('HDEL', record(s, id), 'refused_by') end
      redis.call('HSET', record(s, id), 'state', 'running', 'attempt', attempt, 'lease_seq', lease_seq, 'started_ms', now,
        'token', lease_seq .. '.' .. #rows .. '.' .. nonce, 'holder', u.name, 'events', number(f[4]) + 1)
      redis.call('ZADD', u.window_key, score, id)
      redis.call('HSET', s.cfg, 'last', f[5], 'pulled', nonce)
      take_slot(s, id, HELD_BY_WATCHER_MS)
      redis.call('PUBLISH', NOTE_PREFIX .. id, 'running')
      return id
    end
  end
end

-- -------------------------------------------------------------------------------------------- any other group
local cursors, start, filter = {}, 0, ''
if not lane then
  local fields = redis.call('HGETALL', at_key)
  for i = 1, #fields, 2 do
    local class = string.match(fields[i], '^c(%d+)$')
    if class then cursors[tonumber(class)] = tonumber(fields[i + 1]) end
    if fields[i] == 'start' then start = number(fields[i + 1]) end
    if fields[i] == 'filter' then filter = fields[i + 1] end
  end
end
local moved = {}

local function cursor(u, class)
  if u.from > 1 and not u.cursors then -- one that began further on reads with a cursor of its own until the group is there
    u.cursors = {}
    local fields = redis.call('HGETALL', u.key)
    for i = 1, #fields, 2 do
      local own = string.match(fields[i], '^c(%d+)$')
      if own then u.cursors[tonumber(own)] = tonumber(fields[i + 1]) end
    end
  end
  local group_at = cursors[class] or start
  return math.max(group_at, u.from - 1, u.cursors and u.cursors[class] or 0), group_at
end

local function pass(u, class, index)
  local mine, group_at = cursor(u, class)
  if mine > group_at then
    u.cursors[class] = index
    redis.call('HSET', u.key, 'c' .. class, index)
  else
    cursors[class], moved[class] = index, index
  end
end

-- Whether the group still wants this item, which lies before one of its readers.
local function is_fresh(item)
  looks = looks - 1
  if redis.call('HEXISTS', held_key, item) == 1 then return false end
  if redis.call('ZREM', ahead_key, item) == 1 then return false end
  return filter == '' or has_tags(tags_of(s, k, item), filter)
end

-- The first unread one among those of other classes than normal, whose scores lie in a range.
local function next_special(u, low, high)
  local from = low
  while looks > 0 do
    local head = redis.call('ZRANGE', k.prio, string.format('%d', from), string.format('%d', high), 'BYSCORE', 'LIMIT', 0, 1,
      'WITHSCORES')
    if not head[1] then return nil end
    local score = tonumber(head[2])
    local class, index = 255 - math.floor(score / LEVELS), score % LEVELS
    local read = cursor(u, class)
    if index <= read then
      from = score_of(class, read + 1)
      looks = looks - 1
    elseif is_fresh(head[1]) then
      return head[1], score, class, index
    else
      pass(u, class, index)
      from = score + 1
    end
  end
end

local function next_normal(u)
  while looks > 0 do
    local head = redis.call('ZRANGE', k.items, '(' .. string.format('%d', cursor(u, NORMAL)), '+inf', 'BYSCORE', 'LIMIT', 0, 1,
      'WITHSCORES')
    if not head[1] then return nil end
    local index = tonumber(head[2])
    if not redis.call('ZSCORE', k.prio, head[1]) and is_fresh(head[1]) then
      return head[1], score_of(NORMAL, index), NORMAL, index
    end
    pass(u, NORMAL, index)
  end
end

-- The first that was given back. One that this consumer has refused itself is for the others, where there are any.
local function next_back(u)
  local found = redis.call('ZRANGE', back_key, 0, #users > 1 and 9 or 0, 'WITHSCORES')
  if u.from > 1 then found = redis.call('ZRANGE', back_key, 0, 99, 'WITHSCORES') end
  for i = 1, #found, 2 do
    local n, by, code, reason = split(redis.call('HGET', held_key, found[i]))
    local refused = code ~= '-' and by == u.name and #users > 1
    if refused then u.has_refused = true end
    if tonumber(found[i + 1]) % LEVELS >= u.from and not refused then
      return found[i], tonumber(found[i + 1]), n, code, reason
    end
  end
end

local function hold(u, item, score, n)
  redis.call('HSET', held_key, item, n .. ' ' .. u.name .. ' - -')
  redis.call('ZADD', u.window_key, string.format('%d', score), item)
end

local function give_next(u)
  if lane then
    local id = next_request(u)
    if id then deliver(u, id) end
    return id
  end
  local back, back_score, n, code, reason = next_back(u)
  local item, score, class, index = next_special(u, 0, HIGH_BELOW - 1)
  if not item and not (back and back_score < HIGH_BELOW) then item, score, class, index = next_normal(u) end
  if not item and not back then item, score, class, index = next_special(u, HIGH_BELOW + LEVELS, 256 * LEVELS) end
  if back and (not item or back_score < score) then
    redis.call('ZREM', back_key, back)
    hold(u, back, back_score, n + 1)
    deliver(u, back, code ~= '-' and refusal_tags(code, reason) or nil)
    return true
  end
  if not item then return false end
  pass(u, class, index)
  hold(u, item, score, 1)
  deliver(u, item)
  return true
end

local is_dry = false
while #rows < most and bytes < bytes_most and users[1] and looks > 0 do
  local best = 1
  for i = 2, #users do
    if users[i].room > users[best].room then best = i end
  end
  local u = users[best]
  local found = give_next(u)
  if not found or u.room <= 0 then table.remove(users, best) end
  if not found and looks > 0 and u.from <= 1 then
    is_dry = true
    if not u.has_refused then break end -- there is nothing for the others either
  end
end

for _, u in pairs(by_name) do
  if u.room <= 0 then full[#full + 1] = u.number end
  if u.last then redis.call('HSET', u.key, 'last', u.last, 'seen', now) end
end
for class, index in pairs(moved) do redis.call('HSET', at_key, 'c' .. class, index) end
if #rows > 0 then
  if not lane then redis.call('HSET', at_key, 'last', rows[#rows][3]) end
  redis.call('SET', CALL_PREFIX .. caller, table.concat(lines, '\n'), 'EX', 120)
end
if lane or s.hold then touch(s) end
kick(nonce)
local is_cut = #rows >= most or bytes >= bytes_most or looks <= 0
return { is_cut and 1 or is_dry and 0 or 2, rows, lost, full }
