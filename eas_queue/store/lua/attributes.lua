#!lua flags=no-writes
-- with items, groups, hooks, ends, outcomes, consumers
-- How a queue stands, with its groups and consumers.
-- ARGV[1] service  [2] queue
-- RETURNS {length, first index, last index (0: empty), now_ms, {for the input: waiting, running, the last index that was
-- started, 1 when workers are alive}, rows of consumers {consumer, left at, ms, 0: it is there, window, auto, last index, seen,
-- held, filter}, rows of groups {group, read up to, held, held by nobody, last index, consumers, unread}}
local s = service(ARGV[1])
local k = queue(s, ARGV[2])
local function edge(rank) return tonumber(redis.call('ZRANGE', k.items, rank, rank, 'WITHSCORES')[2] or 0) end
local lane, consumers, groups = {}, {}, {}
if k.name == 'input' then
  local alive = 0
  for _, value in ipairs(redis.call('HVALS', ALIVE)) do
    if string.find(value, '"role":"worker"', 1, true) and now - number(string.match(value, '^%d+')) < 15000 then alive = 1 end
  end
  lane = { waiting(s), redis.call('ZCARD', s.lease), number(redis.call('HGET', s.cfg, 'last')), alive }
end
-- those that are there first, then those that left last
local found = redis.call('ZRANGE', queue_key(k, CONSUMERS_SUFFIX), 0, 999, 'REV', 'WITHSCORES')
for i = 1, #found, 2 do
  local f = redis.call('HMGET', consumer_key(k, found[i]), 'window', 'auto', 'last', 'seen', 'filter')
  local left = tonumber(found[i + 1])
  if f[1] then
    consumers[#consumers + 1] = { found[i], left == math.huge and 0 or left, number(f[1]), number(f[2]), number(f[3]),
      number(f[4]), redis.call('ZCARD', window_key(k, found[i])), f[5] or '' }
  end
end
for i, group in ipairs(redis.call('ZRANGE', queue_key(k, GROUPS_SUFFIX), 0, -1)) do
  local f = redis.call('HMGET', group_key(k, group, AT_SUFFIX), 'c' .. NORMAL, 'last', 'n')
  local back = redis.call('ZCARD', group_key(k, group, BACK_SUFFIX))
  groups[i] = { group, number(f[1]), redis.call('HLEN', group_key(k, group, HELD_SUFFIX)) - back, back, number(f[2]),
    number(f[3]), redis.call('ZCOUNT', k.items, '(' .. string.format('%d', number(f[1])), '+inf') }
end
return { redis.call('ZCARD', k.items), edge(0), edge(-1), now, lane, consumers, groups }
