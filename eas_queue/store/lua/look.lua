#!lua flags=no-writes
-- One consistent look at a request: its record without bodies, its place and the length of its queue.
-- ARGV[1] service  [2] id  [3..] record fields
-- RETURNS {position, depth, field values..}: position counts the requests that will start before it, -1 unless it waits
-- | CODES {} unknown
local s, id = service(ARGV[1]), ARGV[2]
local values = redis.call('HMGET', record(s, id), unpack(ARGV, 3))
if not values[1] then return {} end
local position = redis.call('ZRANK', s.wait, id)
local depth = redis.call('ZCARD', s.wait) + redis.call('ZCARD', s.delay)
return { position or -1, depth, unpack(values) }
