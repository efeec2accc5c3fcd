#!lua flags=no-writes
-- with items
-- How many items a queue holds, of all or one class.
-- ARGV[1] service  [2] queue  [3] class ('' all)
-- RETURNS the number
local s = service(ARGV[1])
local k = queue(s, ARGV[2])
if ARGV[3] == '' then return redis.call('ZCARD', k.items) end
local low = score_of(tonumber(ARGV[3]), 0)
return redis.call('ZCOUNT', k.prio, string.format('%d', low), string.format('(%d', low + LEVELS))
