#!lua
-- Make a service known, give it its number for request ids, and set its limits.
-- ARGV[1] service  [2] kick id  [3] max_concurrency  [4] weight  [5] max_attempts  [6] result ttl, ms
-- ARGV[7] sink items kept: 1 or 0  [8] max_sink_length  [9] a full sink: 1 holds the service, 0 loses its oldest
-- ARGV[10] 1: nothing is forwarded, consumers pull  [11] 1: the settings list it; else it stays as a client enrolled it
-- RETURNS number 1..65535 | CODES -1 no number is free
local name = ARGV[1]
local given = redis.call('HGET', SERVICES, name)
if not given then
  local next_number = redis.call('HLEN', SERVICES) + 1
  if next_number > 65535 then return -1 end
  redis.call('HSET', SERVICES, name, next_number)
  redis.call('HSET', NUMBERS, next_number, name)
  given = next_number
end
local s = service(name)
local pull = ARGV[10]
if ARGV[11] == '0' and redis.call('HEXISTS', s.cfg, 'endpoint') == 1 then pull = '1' end
redis.call('HSET', s.cfg, 'cap', ARGV[3], 'weight', ARGV[4], 'max_attempts', ARGV[5], 'ttl_ms', ARGV[6],
  'sink', ARGV[7], 'max_sink', ARGV[8], 'hold', ARGV[9], 'pull', pull,
  'listed', ARGV[11], 'number', given)
seen[name] = nil
touch(service(name))
tell_watchers(s)
kick(ARGV[2])
return tonumber(given)
