#!lua flags=no-writes
-- Whether any request of these services has another place now: as cheap as it can be asked for many at once.
-- ARGV services
-- RETURNS per service a text, another one whenever something of it has come, started or gone. What comes counts up the
-- index, and what starts the virtual time, or a watcher's pull leaves its nonce. Without either, what is left is to go:
-- back from lease to wait or delay, from delay to wait, or out, and one of the three sizes is smaller then.
local rows = {}
for i, name in ipairs(ARGV) do
  local s = service_keys(name)
  local f = redis.call('HMGET', s.cfg, 'vtime', 'pulled')
  rows[i] = table.concat({ redis.call('HGET', s.seq, 'input') or '', f[1] or '', f[2] or '', redis.call('ZCARD', s.wait),
    redis.call('ZCARD', s.delay), redis.call('ZCARD', s.lease) }, ' ')
end
return rows
