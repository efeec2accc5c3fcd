#!lua
-- What a target says of a request while it works on it. Fenced: only the running attempt may.
-- ARGV[1] service  [2] id  [3] the attempt's progress token: sha1 of "progress " and the lease token
-- ARGV[4] progress, JSON ('' leaves it as it is)  [5] log lines kept  [6..] level, message per line
-- RETURNS 1 taken | CODES 0 no such attempt runs (any more)
local s, id = service(ARGV[1]), ARGV[2]
local r = record(s, id)
local f = redis.call('HMGET', r, 'state', 'token', 'events')
if f[1] ~= 'running' or redis.sha1hex('progress ' .. f[2]) ~= ARGV[3] then return 0 end
local event, lines = number(f[3]), {}
for i = 6, #ARGV, 2 do
  lines[#lines + 1] = table.concat({ event + #lines + 1, now, ARGV[i], ARGV[i + 1] }, ' ')
end
if ARGV[4] ~= '' then redis.call('HSET', r, 'progress', ARGV[4]) end
if #lines > 0 then
  redis.call('HINCRBY', r, 'log_n', #lines)
  redis.call('RPUSH', s.logs .. id, unpack(lines))
  redis.call('LTRIM', s.logs .. id, -ARGV[5], -1)
end
changed(s, id, 'progress', #lines + 1)
return 1
