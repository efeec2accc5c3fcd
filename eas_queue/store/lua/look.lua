#!lua flags=no-writes
-- One consistent look at a request: its record without bodies, its place, and what an estimate of its end needs.
-- ARGV[1] service  [2] id  [3] the kept answer is of interest up to so many bytes  [4..] record fields, state the first
-- RETURNS {position, depth, now_ms, running, mean run, ms, how many runs it stands on, start of the run whose slot it
-- will get, ms, 1 when nothing may start (paused, or held by a full sink), the kept answer or nil, field values..}:
-- position counts the requests that will start before it, -1 unless it waits; the mean and the start are text, '0' where
-- there is none | CODES {} unknown
local s, id = service(ARGV[1]), ARGV[2]
local values = redis.call('HMGET', record(s, id), unpack(ARGV, 4))
if not values[1] then return {} end
local body = false
if values[1] == 'succeeded' or values[1] == 'failed' then
  if redis.call('HSTRLEN', record(s, id), 'result') <= tonumber(ARGV[3]) then
    body = redis.call('HGET', record(s, id), 'result')
  end
end
local position = redis.call('ZRANK', s.wait, id)
local runs, slot_started = redis.call('ZCARD', s.run), '0'
if position and runs > 0 then -- with equal runs, slots become free in the order in which they were taken, round and round
  slot_started = redis.call('ZRANGE', s.run, position % runs, position % runs, 'WITHSCORES')[2]
end
return { position or -1, waiting(s), now, runs, tostring(s.run_ms), s.run_n, slot_started,
  (s.paused or is_held(s)) and 1 or 0, body, unpack(values) }
