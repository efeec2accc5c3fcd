#!lua flags=allow-oom
-- Extend the leases of one process; says which of them are no longer its own.
-- ARGV[1] lease, ms  [2..] service, id, token per lease
-- RETURNS list of {id, token} that are lost: cancelled, finished by another, or returned to the queue
local lost = {}
local lease_ms = tonumber(ARGV[1])
for i = 2, #ARGV, 3 do
  local s, id, token = service(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local f = redis.call('HMGET', record(s, id), 'state', 'token')
  if f[1] == 'running' and f[2] == token then
    redis.call('ZADD', s.lease, now + lease_ms, id)
    due(s, now + lease_ms)
  else
    lost[#lost + 1] = { id, token }
  end
end
return lost
