#!lua flags=allow-oom
-- with items, groups, hooks, ends, outcomes, consumers
-- Consumers say what has become of items that they were given: done, or refused. What is not held (any more, or not by this
-- group) is passed over: saying it twice is harmless, and so is saying it late.
-- ARGV[1] service  [2] queue  [3] group ('' every group that holds it)  [4] kick id  [5] 1: done, 0: refused
-- ARGV[6] code and [7] reason of a refusal, percent-encoded ('' none)  [8..] indexes
-- RETURNS how many were held
local s = service(ARGV[1])
local k, done, settled = queue(s, ARGV[2]), ARGV[5] == '1', 0
local code, reason = ARGV[6] ~= '' and ARGV[6] or NO_CODE, ARGV[7] ~= '' and ARGV[7] or '-'
local stops = code == 'Shutdown' -- it takes no more, and has not begun with this one

local function settle_request(id)
  local f = redis.call('HMGET', record(s, id), 'state', 'holder', 'lease_seq')
  if done then
    if f[1] == 'running' or (f[1] == 'queued' and f[3]) then -- it was given to somebody once
      consume_request(s, id, f[1])
      return true
    end
  elseif f[1] == 'running' and f[2] then
    if stops then redis.call('HSET', consumer_key(k, f[2]), 'stopped', 1) end
    redis.call('HSET', record(s, id), 'refused_by', f[2])
    local text = 'its watcher refused it' .. (code ~= NO_CODE and ' with ' .. code or '')
    hand_back(s, id, not stops, 'Refused', text, refusal_tags(code, reason))
    return true
  end
end

local function settle_item(group, item)
  if done then return commit_item(s, k, group, item) end
  local held = redis.call('HGET', group_key(k, group, HELD_SUFFIX), item)
  if not held or redis.call('ZSCORE', group_key(k, group, BACK_SUFFIX), item) then return false end
  local _, consumer = split(held)
  if stops then redis.call('HSET', consumer_key(k, consumer), 'stopped', 1) end
  redis.call('HSET', consumer_key(k, consumer), 'seen', now)
  give_back(s, k, group, item, not stops, code, reason)
  redis.call('PUBLISH', k.note, 'room ' .. group) -- first: it is for the others, wherever they are connected
  redis.call('PUBLISH', k.note, 'room ' .. consumer)
  return true
end

local groups = ARGV[3] ~= '' and { ARGV[3] } or redis.call('ZRANGE', queue_key(k, GROUPS_SUFFIX), 0, -1)
for i = 8, #ARGV do
  local item = redis.call('ZRANGE', k.items, ARGV[i], ARGV[i], 'BYSCORE')[1]
  if item then
    local was_held = false
    if k.name == 'input' and (ARGV[3] == '' or ARGV[3] == s.name) then was_held = settle_request(item) end
    for _, group in ipairs(groups) do was_held = settle_item(group, item) or was_held end
    if was_held then settled = settled + 1 end
  end
end
kick(ARGV[4])
return settled
