#!lua flags=no-writes
-- with items, groups, hooks, ends, outcomes, consumers
-- Where an item stands for a group; for any, where that group has no consumer here.
-- ARGV[1] service  [2] queue  [3] index  [4] consumer that asks, group/user
-- RETURNS {1 when a consumer holds it, that consumer or the one that asks, how many are pushed before it} | CODES {} no item
local s = service(ARGV[1])
local k, asks = queue(s, ARGV[2]), ARGV[4]
local item = redis.call('ZRANGE', k.items, ARGV[3], ARGV[3], 'BYSCORE')[1]
if not item then return {} end
local group = group_of(asks)
local lane = k.name == 'input' and not is_own(item)
local knows_group = redis.call('ZSCORE', queue_key(k, GROUPS_SUFFIX), group)
local asks_lane = lane and (group == s.name or not knows_group)
if asks_lane then
  local f = redis.call('HMGET', record(s, item), 'state', 'holder')
  if f[1] == 'running' then return { 1, f[2] or s.name .. '/forwarder', 0 } end
end

local function holder(in_group)
  local held = redis.call('HGET', group_key(k, in_group, HELD_SUFFIX), item)
  if not held or redis.call('ZSCORE', group_key(k, in_group, BACK_SUFFIX), item) then return nil end
  local _, consumer = split(held)
  return consumer
end

if not knows_group and not (lane and group == s.name) then
  for _, other in ipairs(redis.call('ZRANGE', queue_key(k, GROUPS_SUFFIX), 0, -1)) do
    local consumer = holder(other)
    if consumer then return { 1, consumer, 0 } end
  end
end
if asks_lane then
  local rank = redis.call('ZRANK', s.wait, item)
  if rank or redis.call('ZCARD', queue_key(k, GROUPS_SUFFIX)) == 0 then
    return { 0, asks, rank or redis.call('ZCARD', s.wait) }
  end
end
local consumer = holder(group)
if consumer then return { 1, consumer, 0 } end

local index = tonumber(ARGV[3])
local score = score_in(k, item, index)
local own_class = 255 - math.floor(score / LEVELS)
local fields, cursors = redis.call('HGETALL', group_key(k, group, AT_SUFFIX)), {}
for i = 1, #fields, 2 do
  local class = string.match(fields[i], '^c(%d+)$')
  if class then cursors[tonumber(class)] = tonumber(fields[i + 1]) end
end
local function text(value) return string.format('%d', value) end
local ahead = redis.call('ZCOUNT', group_key(k, group, BACK_SUFFIX), '-inf', '(' .. text(score))
-- Its own class, and those above it, as far as the group has not read them; of the normal class, all items count but those
-- of other classes.
local normal_from, normal_to = cursors[NORMAL] or 0, own_class == NORMAL and index or math.huge
local counts_normal = own_class <= NORMAL
if counts_normal then
  local to = normal_to < math.huge and '(' .. text(normal_to) or '+inf'
  ahead = ahead + redis.call('ZCOUNT', k.items, '(' .. text(normal_from), to)
end
local from = 0
while true do
  local head = redis.call('ZRANGE', k.prio, text(from), '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  if not head[1] then break end
  local class = 255 - math.floor(tonumber(head[2]) / LEVELS)
  local low, high = score_of(class, 0), score_of(class - 1, 0)
  if class > own_class or class == own_class then
    local to = class == own_class and score or high
    ahead = ahead + redis.call('ZCOUNT', k.prio, '(' .. text(low + (cursors[class] or 0)), '(' .. text(to))
  end
  if counts_normal then
    local to = normal_to < math.huge and low + normal_to or high
    ahead = ahead - redis.call('ZCOUNT', k.prio, '(' .. text(low + normal_from), '(' .. text(to))
  end
  from = high
end
return { 0, asks, math.max(ahead, 0) }
