#!lua
-- A client makes a service one that consumers pull from, and names the endpoint that its requests are for. What the
-- settings say of a service that they list goes before it: register.lua keeps this only for others.
-- ARGV[1] service  [2] endpoint  [3] kick id
-- RETURNS {its endpoint: the one that was named first, 1 when consumers pull from it} | CODES {} it is not registered
local s = service(ARGV[1])
if not s.known then return {} end
local endpoint = redis.call('HGET', s.cfg, 'endpoint')
if not endpoint then
  endpoint = ARGV[2]
  redis.call('HSET', s.cfg, 'endpoint', endpoint, 'enrolled_ms', now)
  if redis.call('HGET', s.cfg, 'listed') ~= '1' then redis.call('HSET', s.cfg, 'pull', 1) end
  seen[s.name] = nil
  s = service(s.name)
  touch(s)
  tell_watchers(s)
end
kick(ARGV[3])
return { endpoint, s.pull and 1 or 0 }
