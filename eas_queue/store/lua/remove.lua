#!lua flags=allow-oom
-- with items, groups, hooks, ends, outcomes, consumers
-- Take items out of a queue, for every group. Of the input: their requests are cancelled. What is not there is no matter.
-- ARGV[1] service  [2] queue  [3] kick id  [4] all with a lower index than this ('' the named ones)  [5] so many at most,
-- fewer where there are many groups
-- ARGV[6..] indexes
-- RETURNS {how many, 1 when there are more to remove}
local s = service(ARGV[1])
local k, most, items = queue(s, ARGV[2]), tonumber(ARGV[5]), {}
if ARGV[4] ~= '' then
  most = math.ceil(most * 16 / (16 + redis.call('ZCARD', queue_key(k, GROUPS_SUFFIX)))) -- each item asks all groups
  items = redis.call('ZRANGE', k.items, '-inf', '(' .. ARGV[4], 'BYSCORE', 'LIMIT', 0, most)
else
  for i = 6, #ARGV do
    local item = redis.call('ZRANGE', k.items, ARGV[i], ARGV[i], 'BYSCORE')[1]
    if item then items[#items + 1] = item end
  end
end
for _, item in ipairs(items) do remove_item(s, k, item, 'deleted by a client of the queue') end
sink_has_room(s)
kick(ARGV[3])
return { #items, ARGV[4] ~= '' and #items == most and 1 or 0 }
