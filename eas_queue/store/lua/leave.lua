#!lua flags=allow-oom
-- with items, groups, hooks, ends, outcomes, consumers
-- A consumer has gone; what it held goes to others, or to it when it comes back.
-- ARGV[1] service  [2] queue  [3] consumer  [4] its token  [5] kick id  [6..] items that it has had, with auto commit
-- RETURNS 1 | CODES 0 it was not there (any more)
local s, consumer = service(ARGV[1]), ARGV[3]
local k, group = queue(s, ARGV[2]), group_of(ARGV[3])
if redis.call('HGET', consumer_key(k, consumer), 'token') ~= ARGV[4] then return 0 end
for i = 6, #ARGV do
  if is_lane(s, k, group) then
    if redis.call('HGET', record(s, ARGV[i]), 'holder') == consumer then consume_request(s, ARGV[i], 'running') end
  else
    commit_item(s, k, group, ARGV[i])
  end
end
release(s, k, consumer)
kick(ARGV[5])
return 1
