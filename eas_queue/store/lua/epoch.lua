#!lua flags=allow-oom
-- Runs before any other script on a server that has just started (its script cache is empty). After a crash the last
-- second of writes may be gone, index counters included, and an index must never be given twice: on a server that was
-- not seen before, every counter jumps ahead.
-- ARGV[1] run id of the server  [2] layout of the keys  [3] the jump
-- RETURNS 1 the counters jumped, 0 the server was known | CODES -1 the data has another layout
local layout = redis.call('HGET', SYS, 'layout')
if layout and layout ~= ARGV[2] then return -1 end
if redis.call('HGET', SYS, 'run_id') == ARGV[1] then return 0 end
local jumped = 0
if layout then
  for _, name in ipairs(redis.call('HKEYS', SERVICES)) do
    local s = service_keys(name)
    for _, counter in ipairs(redis.call('HKEYS', s.seq)) do redis.call('HINCRBY', s.seq, counter, ARGV[3]) end
  end
  jumped = 1
end
redis.call('HSET', SYS, 'run_id', ARGV[1], 'layout', ARGV[2])
return jumped
