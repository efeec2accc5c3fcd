#!lua
-- with hooks
-- Deliver again, also what was delivered: due now, with fresh attempts. What is being sent at this moment is not sent a
-- second time beside that; should it fail, it is due again at once.
-- ARGV[1] service  [2] kick id  [3..] ids
-- RETURNS the ids that have a delivery
local hooks = webhooks()
local s, found = service(ARGV[1]), {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local f = redis.call('HMGET', s.hook .. id, 'to', 'token')
  if f[1] and redis.call('EXISTS', record(s, id)) == 1 then
    if f[2] then
      redis.call('HSET', s.hook .. id, 'again', 1)
    else
      hooks.put(s, id, f[1], now, true)
      hooks.turn(f[1])
    end
    found[#found + 1] = id
  end
end
hooks.kick(ARGV[2])
return found
