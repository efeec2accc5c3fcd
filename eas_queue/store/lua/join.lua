#!lua flags=allow-oom
-- with items, groups, hooks, ends, outcomes, consumers
-- A consumer begins to watch a queue. A consumer of the same name that is still there is not pushed aside.
-- ARGV[1] service  [2] queue  [3] consumer, group/user  [4] its token  [5] process  [6] that process' lease, ms
-- ARGV[7] window  [8] 1: auto commit  [9] 1: index only  [10] from this index on, -1: only what arrives from now on
-- ARGV[11] filter: tags that items must have, as "key=value&.."
-- RETURNS 1 | CODES 0 one of this name is there, -1 the service is not registered, -2 the group has another filter,
-- -3 the queue has too many groups
local s = service(ARGV[1])
if not s.known then return -1 end
local k, consumer = queue(s, ARGV[2]), ARGV[3]
local group, key = group_of(consumer), consumer_key(k, consumer)
redis.call('ZADD', WATCHERS, now + ARGV[6], ARGV[5])
local before = redis.call('HMGET', key, 'token', 'process')
if before[1] and before[1] ~= ARGV[4] then
  if number(redis.call('ZSCORE', WATCHERS, before[2])) > now then
    redis.call('PUBLISH', KNOCK_CHANNEL, s.name .. ' ' .. k.name .. ' ' .. consumer)
    return 0
  end
  release(s, k, consumer) -- its process is dead, and the sweep has not come to it yet
end
local from, is_new = tonumber(ARGV[10]), before[1] ~= ARGV[4]
if from < 0 then from = number(redis.call('HGET', s.seq, k.name)) + 1 end
if not is_lane(s, k, group) then
  local at = group_key(k, group, AT_SUFFIX)
  local f = redis.call('HMGET', at, 'filter', 'n')
  local others = number(f[2]) - (is_new and 0 or 1)
  if f[1] and f[1] ~= ARGV[11] then
    if others > 0 then return -2 end
    redis.call('DEL', at) -- it reads from the head again: what it passed over may be what it wants now
  elseif not f[1] and redis.call('ZCARD', queue_key(k, GROUPS_SUFFIX)) >= GROUPS_MOST then
    -- the place of the one that left first, of those that nobody waits for any more
    local oldest = redis.call('ZRANGE', queue_key(k, GROUPS_SUFFIX), '(0', '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
    if not oldest then return -3 end
    forget_group(k, oldest)
  end
  redis.call('HSET', at, 'filter', ARGV[11])
  redis.call('HSETNX', at, 'start', 0)
  redis.call('HSET', at, 'n', others + 1)
  redis.call('ZADD', queue_key(k, GROUPS_SUFFIX), '+inf', group)
  for _, suffix in ipairs({ AT_SUFFIX, HELD_SUFFIX, BACK_SUFFIX, AHEAD_SUFFIX }) do
    redis.call('PERSIST', group_key(k, group, suffix))
  end
end
redis.call('DEL', key)
redis.call('HSET', key, 'token', ARGV[4], 'process', ARGV[5], 'window', ARGV[7], 'auto', ARGV[8], 'bare', ARGV[9],
  'from', from, 'filter', ARGV[11], 'seen', now)
redis.call('ZADD', queue_key(k, CONSUMERS_SUFFIX), '+inf', consumer)
redis.call('SADD', WATCHES_PREFIX .. ARGV[5], s.name .. ' ' .. k.name .. ' ' .. consumer)
redis.call('PUBLISH', k.note, 'room ' .. group)
return 1
