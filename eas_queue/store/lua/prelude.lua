-- The rules that every transition shares. scripts.py puts this text, the key names of keys.py and the Celery
-- message of kick.py in front of each script; a script is one transition and nothing else calls Redis for it.
-- Validate everything first, then write: an error midway would leave half of the writes.
-- Time: integer milliseconds of Redis' own clock, plus skew_ms, which only tests set.

local LEVELS = 2 ^ 44          -- score = (255 - class) * 2^44 + index: exact in a double, ZRANK = position
local NORMAL = 100
local HIGH_BELOW = (255 - NORMAL) * LEVELS -- scores of the classes above
local KICKS_MAX = 64           -- messages outstanding; each may start as many requests as its process has seats
local UNREPORTED_MAX = 10000   -- as many tasks as Flower keeps
local GHOST_MS = 10000         -- a cancelled call keeps its slot until its holder closed it, this long at most
local CLAIM_BYTES_MAX = 4194304 -- a claim or redrive of many requests stops after this much payload
local EXPIRED_PER_CLAIM_MAX = 1000
local RUN_SAMPLES = 32         -- the mean run time follows about this many of the latest runs
local STARVATION_EVERY = 16    -- every 16th claim asks the fair order first, so that high priority never starves

local clock = redis.call('TIME')
local now, sys_vt, claims
do
  local sys = redis.call('HMGET', SYS, 'skew_ms', 'vt', 'claims')
  now = clock[1] * 1000 + math.floor(clock[2] / 1000) + (tonumber(sys[1]) or 0)
  sys_vt, claims = tonumber(sys[2]) or 0, tonumber(sys[3]) or 0
end

local function number(value) return tonumber(value) or 0 end
local function score_of(class, index) return (255 - class) * LEVELS + index end

-- ---------------------------------------------------------------------------------------------- services
local seen = {}
local function service(name)
  local s = seen[name]
  if s then return s end
  s = service_keys(name)
  local c = redis.call('HMGET', s.cfg, 'cap', 'weight', 'max_attempts', 'ttl_ms', 'sink', 'max_sink', 'paused', 'vtime',
    'hold', 'number', 'run_ms', 'run_n')
  s.known = c[1] and true or false
  s.cap, s.weight, s.max_attempts, s.ttl_ms = number(c[1]), number(c[2]), number(c[3]), number(c[4])
  s.sink_on, s.max_sink, s.paused, s.vtime = c[5] == '1', number(c[6]), c[7] == '1', number(c[8])
  s.hold = s.sink_on and c[9] == '1'
  s.number, s.run_ms, s.run_n = c[10], number(c[11]), number(c[12])
  seen[name] = s
  return s
end

local function record(s, id) return s.records .. id end

local function running(s) return redis.call('ZCARD', s.lease) + redis.call('ZCARD', s.ghost) end

-- Whether the sink, which this service must not evict from, could not take one more result.
local function is_held(s)
  return s.hold and redis.call('ZCARD', s.sink) + redis.call('ZCARD', s.lease) >= s.max_sink
end

local function due(s, at_ms) redis.call('ZADD', DUE, 'LT', at_ms, s.name) end

-- touch and joined are the only writers of READY and READY_HIGH: member exactly when work waits, a slot is free, the sink
-- has room where it must hold every result, and nobody paused it. READY_HIGH is part of READY.
-- A service that becomes ready enters at the virtual time of now, so that idling earns no credit.
-- at: its score in READY where the caller knows it.
local function touch(s, at)
  local head = redis.call('ZRANGE', s.wait, 0, 0, 'WITHSCORES')
  if not head[1] or s.paused or running(s) >= s.cap or is_held(s) then
    if redis.call('ZREM', READY, s.name) == 1 then redis.call('ZREM', READY_HIGH, s.name) end
    return
  end
  at = at or redis.call('ZSCORE', READY, s.name)
  if not at then
    at = math.max(sys_vt, s.vtime)
    redis.call('ZADD', READY, at, s.name)
  end
  if tonumber(head[2]) < HIGH_BELOW then
    redis.call('ZADD', READY_HIGH, at, s.name)
  else
    redis.call('ZREM', READY_HIGH, s.name)
  end
end

-- After one more request waits, of this class: a service that was ready stays so, and only the class can be news.
local function joined(s, class)
  local at = redis.call('ZSCORE', READY, s.name)
  if not at then
    touch(s)
  elseif class > NORMAL then
    redis.call('ZADD', READY_HIGH, at, s.name)
  end
end

-- Rule R, the end of every script: ready work implies an outstanding kick.
local function kick(id)
  if redis.call('EXISTS', READY) == 0 then return end
  if redis.call('ZCARD', KICKS) >= KICKS_MAX then return end
  if redis.call('ZADD', KICKS, 'NX', now, id) == 0 then return end
  if redis.call('EXISTS', READY_HIGH) == 1 then
    redis.call('LPUSH', QUEUE_HIGH, table.concat(KICK_HIGH, id))
  else
    redis.call('LPUSH', QUEUE_NORMAL, table.concat(KICK_NORMAL, id))
  end
end

-- ------------------------------------------------------------------------------------------------- changes
-- A request has changed: whoever waits for it looks again. The counter orders its changes for those who resume.
local function changed(s, id, what, by)
  redis.call('HINCRBY', record(s, id), 'events', by or 1)
  redis.call('PUBLISH', NOTE_PREFIX .. id, what)
end

local function take_slot(s, id, lease_ms)
  redis.call('ZADD', s.lease, now + lease_ms, id)
  redis.call('ZADD', s.run, now, id)
  due(s, now + lease_ms)
end

local function free_slot(s, id)
  redis.call('ZREM', s.lease, id)
  redis.call('ZREM', s.run, id)
end

-- A new request, at the end of its class. deadline_in_ms: 0 none. Returns its index.
local function admit(s, id, class, deadline_in_ms, meta, body)
  local index = redis.call('HINCRBY', s.seq, 'input', 1)
  redis.call('HSET', record(s, id), 'state', 'queued', 'index', index, 'class', class, 'submitted_ms', now,
    'meta', meta, 'body', body)
  redis.call('ZADD', s.wait, score_of(tonumber(class), index), id)
  if deadline_in_ms > 0 then
    redis.call('HSET', record(s, id), 'deadline_ms', now + deadline_in_ms)
    redis.call('ZADD', s.dl, now + deadline_in_ms, id)
    due(s, now + deadline_in_ms)
  end
  return index
end

local function waiting(s) return redis.call('ZCARD', s.wait) + redis.call('ZCARD', s.delay) end

-- ------------------------------------------------------------------------------------------- terminal states
local function iso_date()
  local days, s = math.floor(clock[1] / 86400), clock[1] % 86400
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06d+00:00', year, month, day,
    math.floor(s / 3600), math.floor(s % 3600 / 60), s % 60, clock[2])
end

-- What Celery's Redis backend stores and publishes for a finished task, so that AsyncResult agrees and get() wakes.
-- The inner result is JSON text made by the caller or by failure_json.
local function celery_record(s, id, status, result_json)
  local text = '{"status": "' .. status .. '", "result": ' .. result_json
    .. ', "traceback": null, "children": [], "date_done": "' .. iso_date() .. '", "task_id": "' .. id .. '"}'
  local key = CELERY_RESULT_PREFIX .. id
  redis.call('SET', key, text, 'PX', s.ttl_ms)
  redis.call('PUBLISH', key, text)
end

local function failure_json(exc_type, message, module)
  return cjson.encode({ exc_type = exc_type, exc_message = { message }, exc_module = module })
end

-- Puts the request at the end of a bounded list of ended requests; the oldest leave when it is full, unless it holds.
local function list_ended(s, key, counter, id)
  local index = redis.call('HINCRBY', s.seq, counter, 1)
  redis.call('ZADD', key, index, id)
  if s.hold and counter == 'sink' then return index end
  local over = redis.call('ZCARD', key) - s.max_sink
  if over > 0 then redis.call('ZREMRANGEBYRANK', key, 0, over - 1) end
  return index
end

local ENDING_FIELDS = { 'events', 'idem', 'log_n' } -- what finish_record needs to know of a record

-- Common end of every request. state: a terminal one; fields: flat list of further record fields, which is used up;
-- had: ENDING_FIELDS of the record where the caller has read them.
-- The caller has taken the id out of wait, delay, lease and dl.
local function finish_record(s, id, state, fields, celery_status, celery_json, had)
  local r = record(s, id)
  had = had or redis.call('HMGET', r, unpack(ENDING_FIELDS))
  local function set(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if s.sink_on and (state == 'succeeded' or state == 'failed') then
    set('sink_index', list_ended(s, s.sink, 'sink', id))
    due(s, now + s.ttl_ms)
  end
  set('events', number(had[1]) + 1)
  redis.call('HSET', r, 'state', state, 'finished_ms', now, unpack(fields))
  if state == 'failed' then redis.call('HDEL', r, 'token') -- only dead letters may be sent again
  else redis.call('HDEL', r, 'token', 'body') end
  if had[2] then redis.call('PEXPIRE', s.idempotency .. had[2], s.ttl_ms) end
  if had[3] then redis.call('PEXPIRE', s.logs .. id, s.ttl_ms) end
  redis.call('PEXPIRE', r, s.ttl_ms)
  celery_record(s, id, celery_status, celery_json)
  redis.call('PUBLISH', NOTE_PREFIX .. id, state)
end

local function dead_letter(s, id)
  list_ended(s, s.rear, 'rear', id)
  due(s, now + s.ttl_ms)
end

-- Ends that no worker brought about would be missing in Flower, which hears of requests from workers only.
local function leave_report(s, id, state)
  redis.call('LPUSH', UNREPORTED, s.name .. ' ' .. id .. ' ' .. state)
  redis.call('LTRIM', UNREPORTED, 0, UNREPORTED_MAX - 1)
  redis.call('EXPIRE', UNREPORTED, 3600)
end

local function expire(s, id)
  redis.call('ZREM', s.wait, id)
  redis.call('ZREM', s.delay, id)
  redis.call('ZREM', s.dl, id)
  finish_record(s, id, 'expired', { 'error_type', 'Expired', 'error', 'the queue deadline passed before it was sent' },
    'REVOKED', failure_json('TaskRevokedError', 'expired', 'celery.exceptions'))
  leave_report(s, id, 'expired')
end

-- Back to the queue at its old place. delay_ms > 0: not before then.
local function requeue(s, id, delay_ms)
  local r = record(s, id)
  local f = redis.call('HMGET', r, 'class', 'index', 'deadline_ms')
  redis.call('HDEL', r, 'token')
  if delay_ms > 0 then
    redis.call('HSET', r, 'state', 'queued', 'not_before_ms', now + delay_ms)
    redis.call('ZADD', s.delay, now + delay_ms, id)
    due(s, now + delay_ms)
  else
    redis.call('HSET', r, 'state', 'queued')
    redis.call('HDEL', r, 'not_before_ms')
    redis.call('ZADD', s.wait, score_of(number(f[1]), number(f[2])), id)
  end
  if number(f[3]) > 0 then
    redis.call('ZADD', s.dl, f[3], id)
    due(s, number(f[3]))
  end
  changed(s, id, 'queued')
end

-- ---------------------------------------------------------------------------------------------------- claim
-- The service whose work is next, its virtual time, and whether the fair order chose it.
local function pick()
  claims = claims + 1
  local urgent = claims % STARVATION_EVERY ~= 0 and redis.call('ZRANGE', READY_HIGH, 0, 0, 'WITHSCORES') or {}
  local first = urgent[1] and urgent or redis.call('ZRANGE', READY, 0, 0, 'WITHSCORES')
  return first[1] and service(first[1]), number(first[2]), not urgent[1]
end

local WORK_FIELDS = { 'attempt', 'deadline_ms', 'meta', 'body', 'submitted_ms', 'lease_seq', 'events' }

-- Leases up to n requests, best first, to the caller whose nonce this is; the answer is a flat list per request:
-- service, id, token, attempt, meta, body, submitted_ms, deadline_ms, started_ms. Requests past their deadline end on the way.
local function claim(n, nonce, lease_ms)
  local got, bytes, passed, touched = {}, 0, 0, {}
  while #got < n and bytes < CLAIM_BYTES_MAX and passed < EXPIRED_PER_CLAIM_MAX do
    local s, at, is_fair = pick()
    if not s then break end
    local id = redis.call('ZPOPMIN', s.wait)[1]
    local r = record(s, id)
    local f = redis.call('HMGET', r, unpack(WORK_FIELDS))
    local deadline_ms = number(f[2])
    if deadline_ms > 0 and deadline_ms <= now then
      expire(s, id)
      passed = passed + 1
    elseif f[3] then
      local attempt, lease_seq = number(f[1]) + 1, number(f[6]) + 1
      -- one claim leases many requests, and every lease has a token of its own
      local token = lease_seq .. '.' .. #got .. '.' .. nonce
      redis.call('HSET', r, 'state', 'running', 'attempt', attempt, 'token', token, 'started_ms', now,
        'lease_seq', lease_seq, 'events', number(f[7]) + 1)
      take_slot(s, id, lease_ms)
      if deadline_ms > 0 then redis.call('ZREM', s.dl, id) end
      s.vtime = at + 1 / s.weight
      -- Virtual time follows the fair order only: a flood of high priority must not put newcomers behind a backlog.
      if is_fair then sys_vt = math.max(sys_vt, at) end
      at = s.vtime
      redis.call('ZADD', READY, 'XX', at, s.name)
      redis.call('PUBLISH', NOTE_PREFIX .. id, 'running')
      touched[s.name] = s
      got[#got + 1] = { s.name, id, token, attempt, f[3], f[4] or '', f[5], deadline_ms, now }
      bytes = bytes + #(f[4] or '')
    end
    touch(s, at)
  end
  if next(touched) then
    redis.call('HSET', SYS, 'vt', sys_vt, 'claims', claims)
    for _, s in pairs(touched) do redis.call('HSET', s.cfg, 'vtime', s.vtime) end
  end
  return got
end

-- A call that is sent twice (its answer was lost) must not claim twice: the caller's last nonce and ids are kept.
local function recall(caller, nonce)
  local kept = redis.call('GET', CALL_PREFIX .. caller)
  if not kept or string.sub(kept, 1, #nonce) ~= nonce then return nil end
  local got = {}
  for name, id in string.gmatch(string.sub(kept, #nonce + 1), '\n(%S+) (%S+)') do
    local s = service(name)
    local f = redis.call('HMGET', record(s, id), 'token', 'attempt', 'meta', 'body', 'submitted_ms', 'deadline_ms',
      'started_ms')
    if f[1] and string.sub(f[1], -#nonce) == nonce then
      got[#got + 1] = { name, id, f[1], number(f[2]), f[3], f[4] or '', f[5], number(f[6]), number(f[7]) }
    end
  end
  return got
end

local function remember(caller, nonce, got)
  local lines = { nonce }
  for i, work in ipairs(got) do lines[i + 1] = work[1] .. ' ' .. work[2] end
  redis.call('SET', CALL_PREFIX .. caller, table.concat(lines, '\n'), 'EX', 120)
end
