#!lua flags=no-writes
-- Which of these requests have changed? As cheap as it can be asked for many at once.
-- ARGV[1] service  [2..] ids
-- RETURNS per id {changes so far, position}: changes -1 when unknown, position -1 unless it waits
local s, rows = service(ARGV[1]), {}
for i = 2, #ARGV do
  local f = redis.call('HMGET', record(s, ARGV[i]), 'state', 'events')
  local position = f[1] == 'queued' and redis.call('ZRANK', s.wait, ARGV[i])
  rows[i - 1] = { f[1] and number(f[2]) or -1, position or -1 }
end
return rows
