#!lua flags=no-writes
-- Whether anything has been put into these queues: as cheap as it can be asked for many at once.
-- ARGV service, queue, ..
-- RETURNS the last index given in each
local rows = {}
for i = 1, #ARGV, 2 do
  local s = service_keys(ARGV[i])
  rows[#rows + 1] = number(redis.call('HGET', s.seq, ARGV[i + 1]))
end
return rows
