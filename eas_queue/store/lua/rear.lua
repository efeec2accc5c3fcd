#!lua flags=no-writes
-- A page of a service's dead letters, oldest first.
-- ARGV[1] service  [2] after this rear index  [3] how many at most  [4..] record fields
-- RETURNS {how many there are, rows of {rear index, id, field values..}}
local s, rows = service(ARGV[1]), {}
local found = redis.call('ZRANGE', s.rear, '(' .. ARGV[2], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
for i = 1, #found, 2 do
  local values = redis.call('HMGET', record(s, found[i]), unpack(ARGV, 4))
  if values[1] then rows[#rows + 1] = { found[i + 1], found[i], unpack(values) } end -- else the sweep is about to drop it
end
return { redis.call('ZCARD', s.rear), rows }
