#!lua flags=allow-oom
-- with items, groups, hooks, ends, claims
-- End an attempt and, in the same step, lease the next work for the seat that became free.
-- Fenced: only the holder of the live lease changes the request; anyone else only gets its slot cleaned and new work.
-- Idempotent by token and nonce.
-- ARGV[1] service  [2] id  [3] token  [4] outcome: succeeded, failed, retry or release
-- ARGV[5] how many to lease at most  [6] caller  [7] nonce  [8] lease, ms
-- succeeded, failed: [9] status code of the answer  [10] its headers, JSON  [11] its body  [12] '1': the target's own,
--   '0': made by the queue  [13] error type  [14] error text  [15] Celery's result, JSON  [16] '1': dead letter
-- retry (counts the attempt) and release (does not): [9] delay, ms  [10] error type  [11] error text
-- RETURNS {fenced, work}: fenced 1 when the outcome was taken, 0 when the lease was lost; work as start.lua returns it
local s, id, token, outcome = service(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local r = record(s, id)
local f = redis.call('HMGET', r, 'state', 'token', 'won', 'started_ms', unpack(ENDING_FIELDS))
local taken, is_first, is_end = 0, false, false

-- How long the target takes, as a mean of the latest runs: the ETA stands on it.
local function note_run(ran_ms)
  local n = s.run_n + 1
  local mean = s.run_ms + (ran_ms - s.run_ms) / math.min(n, RUN_SAMPLES)
  redis.call('HSET', s.cfg, 'run_ms', string.format('%.1f', mean), 'run_n', n)
end

if f[1] == 'running' and f[2] == token then
  taken, is_first = 1, true
  free_slot(s, id)
  is_end = outcome == 'succeeded' or outcome == 'failed'
  if is_end then
    local fields = { 'status_code', ARGV[9], 'headers', ARGV[10], 'result', ARGV[11], 'from_target', ARGV[12],
      'result_bytes', #ARGV[11], 'won', token }
    if ARGV[13] ~= '' then
      for _, v in ipairs({ 'error_type', ARGV[13], 'error', ARGV[14] }) do fields[#fields + 1] = v end
    end
    finish_record(s, id, outcome, fields, outcome == 'succeeded' and 'SUCCESS' or 'FAILURE', ARGV[15],
      { unpack(f, 5, 4 + #ENDING_FIELDS) })
    if ARGV[12] == '1' then note_run(now - number(f[4])) end
    if ARGV[16] == '1' then dead_letter(s, id) end
  else
    redis.call('HSET', r, 'error_type', ARGV[10], 'error', ARGV[11], 'won', token)
    if outcome == 'release' then redis.call('HINCRBY', r, 'attempt', -1) end
    requeue(s, id, tonumber(ARGV[9]))
  end
elseif f[3] == token then
  taken = 1 -- sent again: done before
end
if not is_first then redis.call('ZREM', s.ghost, id .. '/' .. token) end -- a call that was cancelled
touch(s)

local n = tonumber(ARGV[5])
-- A copy of this call that the network has kept back may come after its caller has heard the answer: nobody would run what
-- it leased. What has been leased is remembered, or that nothing was, unless the record says for good that this was done.
local got = not is_first and (recall(ARGV[6], ARGV[7]) or taken == 1 and {})
if not got then
  got = claim(n, ARGV[7], tonumber(ARGV[8]))
  if #got > 0 or not is_end then remember(ARGV[6], ARGV[7], got) end
end
kick(ARGV[7])
return { taken, got }
