#!lua flags=no-writes
-- A page of a service's dead letters, oldest first. Those whose record is gone, which the sweep is about to drop, count
-- for the page and are left out of it.
-- ARGV[1] service  [2] after this rear index  [3] how many at most  [4..] record fields
-- RETURNS {how many there are, the rear index that the page reaches, rows of {rear index, id, field values..}}
local s, rows = service(ARGV[1]), {}
local found = redis.call('ZRANGE', s.rear, '(' .. ARGV[2], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
for i = 1, #found, 2 do
  local values = redis.call('HMGET', record(s, found[i]), unpack(ARGV, 4))
  if values[1] then rows[#rows + 1] = { found[i + 1], found[i], unpack(values) } end
end
return { redis.call('ZCARD', s.rear), found[#found] or ARGV[2], rows }
