#!lua
-- What a target or taker says of a request while it works on it. Fenced: only the running attempt may.
-- ARGV[1] service  [2] id  [3] the attempt's progress token: sha1 of "progress " and the lease token; '' for takers
-- ARGV[4] progress, JSON ('' leaves it as it is)  [5] log lines kept  [6] bytes of them kept  [7] taker ('' any)
-- [8] 1: these limits hold from here on, as somebody reads all  [9..] level, message per line
-- RETURNS 1 taken | CODES 0 no such attempt runs (any more)
local s, id = service(ARGV[1]), ARGV[2]
local r = record(s, id)
local f = redis.call('HMGET', r, 'state', 'token', 'events', 'taker', 'log_most')
if f[1] ~= 'running' then return 0 end
if ARGV[3] ~= '' and redis.sha1hex('progress ' .. f[2]) ~= ARGV[3] then return 0 end
if ARGV[3] == '' and (not f[4] or (ARGV[7] ~= '' and f[4] ~= ARGV[7])) then return 0 end
local event, lines = number(f[3]), {}
local bytes = 0
for i = 9, #ARGV, 2 do
  lines[#lines + 1] = table.concat({ event + #lines + 1, now, ARGV[i], ARGV[i + 1] }, ' ')
  bytes = bytes + #lines[#lines]
end
if ARGV[4] ~= '' then redis.call('HSET', r, 'progress', ARGV[4]) end
if #lines > 0 then
  redis.call('HINCRBY', r, 'log_n', #lines)
  local kept = redis.call('RPUSH', s.logs .. id, unpack(lines))
  bytes = redis.call('HINCRBY', r, 'log_bytes', bytes)
  if ARGV[8] == '1' and not f[5] then redis.call('HSET', r, 'log_most', ARGV[5] .. ' ' .. ARGV[6]) end
  local most, bytes_most = string.match(f[5] or '', '^(%d+) (%d+)$')
  most, bytes_most = tonumber(most or ARGV[5]), tonumber(bytes_most or ARGV[6])
  while kept > most or (kept > 1 and bytes > bytes_most) do
    bytes = redis.call('HINCRBY', r, 'log_bytes', -#redis.call('LPOP', s.logs .. id))
    kept = kept - 1
  end
end
changed(s, id, 'progress', #lines + 1)
return 1
