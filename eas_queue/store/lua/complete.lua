#!lua flags=allow-oom
-- with items, groups, hooks, ends, outcomes
-- Somebody has done what a request asks for, and says what came of it. No lease is asked for: of all who say so the first
-- one ends the request, whoever has it now; later ones change nothing.
-- ARGV[1] service  [2] id  [3] nonce  [4] outcome: succeeded or failed  [5] status code of the answer  [6] its headers, JSON
-- [7] its body  [8] what its dialect keeps of it besides ('' nothing)  [9] error type  [10] error text
-- [11] Celery's result, JSON
-- RETURNS 1 when this ended the request, 0 when it had ended, or is not known | CODES -1 it is for the forwarder
local s, id, nonce, outcome = service(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local r = record(s, id)
local f = redis.call('HMGET', r, 'state', 'won', 'taker', 'answer_by', 'deadline_ms')
if f[1] ~= 'queued' and f[1] ~= 'running' then return f[2] == nonce and 1 or 0 end
if not s.pull and not f[3] then return -1 end
local is_late = f[4] and number(f[5]) > 0 and number(f[5]) <= now
if is_late then
  end_late(s, id, f[1])
else
  local fields = { 'status_code', ARGV[5], 'headers', ARGV[6], 'result', ARGV[7], 'from_target', '1',
    'result_bytes', #ARGV[7], 'won', nonce }
  for name, value in pairs({ answer_about = ARGV[8], error_type = ARGV[9], error = ARGV[10] }) do
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  end_request(s, id, f[1], outcome, fields, outcome == 'succeeded' and 'SUCCESS' or 'FAILURE', ARGV[11])
end
kick(nonce)
return is_late and 0 or 1
