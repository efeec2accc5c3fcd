#!lua flags=allow-oom
-- with hooks
-- What has become of an attempt to deliver. Fenced by its token, and idempotent by it.
-- ARGV[1] service  [2] id  [3] token  [4] delivered, retry or failed (nothing more is tried)  [5] pause before
--   a retry, ms
-- ARGV[6] the receiver's status code ('' none)  [7] why it was no success ('' it was one)  [8] kick id
-- RETURNS 1 it was noted, 0 the lease was lost: another attempt counts
local hooks = webhooks()
local s, id, token, outcome = service(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local h = s.hook .. id
local f = redis.call('HMGET', h, 'to', 'token', 'done', 'again')
if f[3] == token then return 1 end -- sent again
if f[2] ~= token then return 0 end
local to = f[1]
redis.call('ZREM', HOOKS_OUT_PREFIX .. to, s.name .. ' ' .. id)
redis.call('HSET', h, 'done', token, 'last_status', ARGV[6], 'last_error', ARGV[7])
if outcome == 'delivered' then
  redis.call('HSET', h, 'state', 'delivered', 'delivered_ms', now)
  redis.call('HDEL', h, 'token', 'again', 'next_ms')
  redis.call('SREM', HOOKS_FAILING, to)
else
  redis.call('SADD', HOOKS_FAILING, to)
  if f[4] then -- somebody wants it sent anew
    hooks.put(s, id, to, now, true)
  elseif outcome == 'retry' then
    hooks.put(s, id, to, now + tonumber(ARGV[5]))
  else
    hooks.give_up(s, id)
  end
end
hooks.turn(to)
hooks.kick(ARGV[8])
return 1
