#!lua
-- How a lane stands: what has been put into it, taken from it and answered, in all.
-- ARGV[1] service  [2] 1: high priority
-- RETURNS {1 when consumers pull from the service, its endpoint ('' none), when it was enrolled, ms (0 never), its number,
-- put, taken, ended with an answer, last index given, last index started} | CODES {} it is not registered
local s, flag = service(ARGV[1]), ARGV[2]
if not s.known then return {} end
local f = redis.call('HMGET', s.cfg, 'endpoint', 'enrolled_ms', 'put' .. flag, 'taken' .. flag, 'done' .. flag, 'last')
return { s.pull and 1 or 0, f[1] or '', number(f[2]), tonumber(s.number), number(f[3]), number(f[4]), number(f[5]),
  number(redis.call('HGET', s.seq, 'input')), number(f[6]) }
