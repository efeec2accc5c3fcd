#!lua flags=no-writes
-- Which processes take part, and whether anybody sweeps.
-- RETURNS {age of the last sweep, ms, -1 none yet, flat list of process, "age_ms about"}
local swept, rows = redis.call('HGET', SYS, 'swept_ms'), redis.call('HGETALL', ALIVE)
for i = 2, #rows, 2 do
  local seen, about = string.match(rows[i], '^(%d+) (.*)$')
  rows[i] = string.format('%d %s', now - number(seen), about)
end
return { swept and now - number(swept) or -1, rows }
