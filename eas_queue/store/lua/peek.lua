#!lua flags=no-writes
-- Which of these requests have changed, and where do they wait? As cheap as it can be asked for many at once.
-- ARGV[1] service  [2..] ids
-- RETURNS {depth, now_ms, running, mean run, ms, how many runs it stands on, 1 when nothing may start, rows}, as look.lua
-- says it; a row per id {changes so far, position, start of the run whose slot it will get}: changes -1 when unknown,
-- position -1 unless it waits
local s, rows, starts = service(ARGV[1]), {}, {}
local runs = redis.call('ZCARD', s.run)
for i = 2, #ARGV do
  local f = redis.call('HMGET', record(s, ARGV[i]), 'state', 'events')
  local position = f[1] == 'queued' and redis.call('ZRANK', s.wait, ARGV[i])
  local slot = position and runs > 0 and position % runs
  if slot and not starts[slot] then starts[slot] = redis.call('ZRANGE', s.run, slot, slot, 'WITHSCORES')[2] end
  rows[i - 1] = { f[1] and number(f[2]) or -1, position or -1, slot and starts[slot] or '0' }
end
return { waiting(s), now, runs, tostring(s.run_ms), s.run_n, (s.paused or is_held(s)) and 1 or 0, rows }
