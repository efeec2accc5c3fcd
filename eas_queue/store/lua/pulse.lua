#!lua flags=no-writes
-- Whether anything has been put into these queues: as cheap as it can be asked for many at once.
-- ARGV service, queue, ..
-- RETURNS per queue a number: another one when something has been put, and, of the input, as long as something waits
local rows = {}
for i = 1, #ARGV, 2 do
  local s = service_keys(ARGV[i])
  local last = number(redis.call('HGET', s.seq, ARGV[i + 1]))
  if ARGV[i + 1] == 'input' and redis.call('EXISTS', s.wait) == 1 then last = last + now end
  rows[#rows + 1] = last
end
return rows
