#!lua
-- Store a new request in its service's queue and, where it can start, announce work: one step, all or nothing.
-- Refused whole while the server is out of memory. Idempotent by id: sent again, it answers what it answered first.
-- ARGV[1] service  [2] id  [3] its number as the caller knows it  [4] class 0..255  [5] deadline, ms from now (0 none)
-- ARGV[6] max_queue_length  [7] meta, JSON  [8] body
-- RETURNS {1, index, state, submitted_ms} | CODES {0, waiting} full, {-1} the service is not registered: do that first
local name, id = ARGV[1], ARGV[2]
local s = service(name)
if not s.known or redis.call('HGET', SERVICES, name) ~= ARGV[3] then return { -1 } end
local r = record(s, id)
local before = redis.call('HMGET', r, 'index', 'state', 'submitted_ms')
if before[1] then return { 1, before[1], before[2], before[3] } end
local waiting = redis.call('ZCARD', s.wait) + redis.call('ZCARD', s.delay)
if waiting >= tonumber(ARGV[6]) then return { 0, waiting } end

local index = redis.call('HINCRBY', s.seq, 'input', 1)
redis.call('HSET', r, 'state', 'queued', 'index', index, 'class', ARGV[4], 'submitted_ms', now,
  'meta', ARGV[7], 'body', ARGV[8])
redis.call('ZADD', s.wait, score_of(tonumber(ARGV[4]), index), id)
local deadline = tonumber(ARGV[5])
if deadline > 0 then
  redis.call('HSET', r, 'deadline_ms', now + deadline)
  redis.call('ZADD', s.dl, now + deadline, id)
  due(s, now + deadline)
end
touch(s)
kick(id)
return { 1, index, 'queued', now }
