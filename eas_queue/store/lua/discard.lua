#!lua flags=allow-oom
-- with items, groups
-- Take dead letters off the list for good; how the requests ended stays known as long as their records.
-- ARGV[1] service  [2..] ids
-- RETURNS the ids that were dead letters
local s, gone = service(ARGV[1]), {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', s.rear, ARGV[i]) and not is_own(ARGV[i]) then
    drop_item(s, queue(s, 'rear'), ARGV[i])
    redis.call('HDEL', record(s, ARGV[i]), 'body')
    gone[#gone + 1] = ARGV[i]
  end
end
return gone
