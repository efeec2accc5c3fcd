#!lua flags=no-writes
-- How a service stands.
-- ARGV[1] service
-- RETURNS {startable, delayed, running, closing, sink, rear, paused 1 or 0, held 1 or 0, age of the oldest startable of
-- the best class, ms, mean run, ms (text), runs} | CODES {} the service is not registered
local s = service(ARGV[1])
if not s.known then return {} end
local head, age = redis.call('ZRANGE', s.wait, 0, 0)[1], 0
if head then age = now - number(redis.call('HGET', record(s, head), 'submitted_ms')) end
local sizes = {}
for i, key in ipairs({ s.wait, s.delay, s.lease, s.ghost, s.sink, s.rear }) do sizes[i] = redis.call('ZCARD', key) end
sizes[#sizes + 1] = s.paused and 1 or 0
sizes[#sizes + 1] = is_held(s) and 1 or 0
sizes[#sizes + 1] = age
sizes[#sizes + 1] = tostring(s.run_ms)
sizes[#sizes + 1] = s.run_n
return sizes
