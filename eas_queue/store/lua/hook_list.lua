#!lua flags=no-writes
-- A page of a service's deliveries, oldest first, or one of them. Those whose record is gone, which the sweep is about
-- to drop, count for the page and are left out of it.
-- ARGV[1] service  [2] hooks: all, hooks_failed: those given up  [3] behind this index  [4] how many at most
-- ARGV[5] only this one ('' a page)  [6..] fields
-- RETURNS {how many there are, the index that the page reaches, rows of {index, id, the record's hook, 1 while it is
-- being sent, field values..}}
local s, rows = service(ARGV[1]), {}

local function show(index, id)
  local hook = redis.call('HGET', record(s, id), 'hook')
  local f = redis.call('HMGET', s.hook .. id, 'token', unpack(ARGV, 6))
  if hook and f[2] then rows[#rows + 1] = { index, id, hook, f[1] and 1 or 0, unpack(f, 2) } end
end

local reached = ARGV[3]
if ARGV[5] ~= '' then
  local index = redis.call('ZSCORE', s.hooks, ARGV[5])
  if index then show(index, ARGV[5]) end
else
  local found = redis.call('ZRANGE', s[ARGV[2]], '(' .. ARGV[3], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[4], 'WITHSCORES')
  for i = 1, #found, 2 do show(found[i + 1], found[i]) end
  reached = found[#found] or reached
end
return { redis.call('ZCARD', s[ARGV[2]]), reached, rows }
