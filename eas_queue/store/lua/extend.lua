#!lua flags=allow-oom
-- with items, ends
-- A taker goes on with what it took: its lease ends later. Where the request must be answered by its deadline, then at most.
-- ARGV[1] service  [2] id  [3] lease, ms from now  [4] taker ('' whoever it is)
-- RETURNS 1 | CODES 0 no taker holds it (any more), or another one
local s, id = service(ARGV[1]), ARGV[2]
local f = redis.call('HMGET', record(s, id), 'state', 'taker', 'answer_by', 'deadline_ms')
if f[1] ~= 'running' or not f[2] or (ARGV[4] ~= '' and f[2] ~= ARGV[4]) then return 0 end
local ends_ms = now + tonumber(ARGV[3])
if f[3] and number(f[4]) > 0 then
  if number(f[4]) <= now then return 0 end
  ends_ms = math.min(ends_ms, number(f[4]))
end
redis.call('ZADD', s.lease, ends_ms, id)
due(s, ends_ms)
return 1
