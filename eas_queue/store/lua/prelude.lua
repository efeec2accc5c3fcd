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
local EVICTED_MOST = 1000      -- from a queue that was made smaller, in one step
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
    'hold', 'number', 'run_ms', 'run_n', 'pull')
  s.known = c[1] and true or false
  s.cap, s.weight, s.max_attempts, s.ttl_ms = number(c[1]), number(c[2]), number(c[3]), number(c[4])
  s.sink_on, s.max_sink, s.paused, s.vtime = c[5] == '1', number(c[6]), c[7] == '1', number(c[8])
  s.hold = s.sink_on and c[9] == '1'
  s.number, s.run_ms, s.run_n, s.pull = c[10], number(c[11]), number(c[12]), c[13] == '1'
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

-- touch and joined are the only writers of READY and READY_HIGH: member exactly when work waits for the workers, a slot is
-- free, the sink has room where it must hold every result, and nobody paused it. READY_HIGH is part of READY.
-- A service that becomes ready enters at the virtual time of now, so that idling earns no credit.
-- at: its score in READY where the caller knows it.
local function touch(s, at)
  local head = redis.call('ZRANGE', s.wait, 0, 0, 'WITHSCORES')
  if not head[1] or s.paused or s.pull or running(s) >= s.cap or is_held(s) then
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

-- ------------------------------------------------------------------------------------------------- queues
-- The four queues of a service are read by groups of consumers. The input's own group, named like the service, works on
-- the requests: it is the lane of wait, delay and lease above. All other groups only keep account of what they have read.

local function queue(s, name)
  local base = PREFIX .. '{' .. s.name .. '}:' .. QUEUE_SUFFIX .. name .. ':'
  return { name = name, items = s[name], base = base, prio = base .. PRIO_SUFFIX, named = base .. NAMED_SUFFIX, names = base .. NAMES_SUFFIX,
    groups = base .. GROUPS_SUFFIX, consumers = base .. CONSUMERS_SUFFIX,
    note = QUEUE_NOTE_PREFIX .. s.name .. ':' .. name }
end

local function group_key(k, group, suffix) return k.base .. GROUP_SUFFIX .. group .. ':' .. suffix end
local function consumer_key(k, consumer) return k.base .. CONSUMER_SUFFIX .. consumer end
local function window_key(k, consumer) return k.base .. WINDOW_SUFFIX .. consumer end
local function is_own(item) return string.byte(item) == 105 end -- "i..": no request's id begins so
local function name_entry(name, index, item) return name .. '\0' .. string.format('%016d', index) .. '\0' .. item end

-- A new item at the end of a queue. name: its requestId, where a client chose that.
local function add_item(s, k, item, class, name)
  local index = redis.call('HINCRBY', s.seq, k.name, 1)
  redis.call('ZADD', k.items, index, item)
  if class ~= NORMAL then redis.call('ZADD', k.prio, score_of(class, index), item) end
  if name then
    redis.call('ZADD', k.named, 0, name_entry(name, index, item))
    redis.call('HSET', k.names, item, name)
  end
  redis.call('PUBLISH', k.note, 'put ' .. (name or item))
  return index
end

-- Out of the queue, for all groups.
local function drop_item(s, k, item)
  local index = redis.call('ZSCORE', k.items, item)
  if not index then return end
  redis.call('ZREM', k.items, item)
  redis.call('ZREM', k.prio, item)
  local name = redis.call('HGET', k.names, item)
  if name then
    redis.call('ZREM', k.named, name_entry(name, index, item))
    redis.call('HDEL', k.names, item)
  end
  for _, group in ipairs(redis.call('ZRANGE', k.groups, 0, -1)) do
    local held = redis.call('HGET', group_key(k, group, HELD_SUFFIX), item)
    if held then
      local consumer = string.match(held, '^%S+ (%S+)')
      redis.call('HDEL', group_key(k, group, HELD_SUFFIX), item)
      redis.call('ZREM', group_key(k, group, BACK_SUFFIX), item)
      if redis.call('ZREM', window_key(k, consumer), item) == 1 then redis.call('PUBLISH', k.note, 'room ' .. consumer) end
    end
    redis.call('ZREM', group_key(k, group, AHEAD_SUFFIX), item)
  end
  if is_own(item) then redis.call('DEL', s.own .. item) end
end

local function has_tags(tags, filter)
  for pair in string.gmatch(filter, '[^&]+') do
    if not string.find(tags, '&' .. pair .. '&', 1, true) then return false end
  end
  return true
end

local VIEW_FIELDS = { 'tags', 'name', 'submitted_ms', 'finished_ms', 'status_code', 'why' }

-- An item's tags, as "&key=value&..&" with both parts percent-encoded.
local function tags_of(s, k, item)
  if is_own(item) then return redis.call('HGET', s.own .. item, 'tags') or '&' end
  local f = redis.call('HMGET', s.records .. item, unpack(VIEW_FIELDS))
  local tags = f[1] or '&'
  if not f[2] then tags = tags .. 'requestId=' .. item .. '&' end
  tags = tags .. 'ts%40source=' .. (f[3] or '0') .. '&'
  if k.name == 'sink' or k.name == 'sink_rear' then
    tags = tags .. 'ts%40sink=' .. (f[4] or '0') .. '&'
    if f[5] and f[5] ~= '200' then tags = tags .. 'lastCode=' .. f[5] .. '&' end
  elseif f[6] then
    tags = tags .. f[6]
  end
  return tags
end

-- Whether some group that is waited for still needs the item; and whether there is any that it concerns.
local function wanted(s, k, item)
  local groups = redis.call('ZRANGE', k.groups, '(0', '+inf', 'BYSCORE')
  if not groups[1] then return false, false end
  local index, concerns, tags = tonumber(redis.call('ZSCORE', k.items, item)), false, nil
  local prio = redis.call('ZSCORE', k.prio, item)
  local class = prio and 255 - math.floor(prio / LEVELS) or NORMAL
  for _, group in ipairs(groups) do
    local f = redis.call('HMGET', group_key(k, group, AT_SUFFIX), 'filter', 'c' .. class, 'start')
    local filter = f[1] or ''
    if filter ~= '' then tags = tags or tags_of(s, k, item) end
    if filter == '' or has_tags(tags, filter) then
      concerns = true
      if redis.call('HEXISTS', group_key(k, group, HELD_SUFFIX), item) == 1 then return true, true end
      if index > number(f[2] or f[3]) and not redis.call('ZSCORE', group_key(k, group, AHEAD_SUFFIX), item) then
        return true, true
      end
    end
  end
  return false, concerns
end

-- A request that ends leaves the input, unless a tap has not read it yet; returns whether it stays.
local function leave_input(s, id, class, name)
  local k = queue(s, 'input')
  if redis.call('EXISTS', k.groups) == 1 then
    if wanted(s, k, id) then
      redis.call('ZADD', s.kept, now + s.ttl_ms, id)
      due(s, now + s.ttl_ms)
      return true
    end
    drop_item(s, k, id)
    return false
  end
  if name then
    redis.call('ZREM', k.named, name_entry(name, redis.call('ZSCORE', k.items, id), id))
    redis.call('HDEL', k.names, id)
  end
  redis.call('ZREM', k.items, id)
  if class ~= NORMAL then redis.call('ZREM', k.prio, id) end
  return false
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

-- A request that a watcher of the lane holds is no longer in its window.
local function free_window(s, id)
  local holder = redis.call('HGET', record(s, id), 'holder')
  if not holder then return nil end
  local k = queue(s, 'input')
  redis.call('HDEL', record(s, id), 'holder')
  redis.call('ZREM', window_key(k, holder), id)
  redis.call('PUBLISH', k.note, 'room ' .. holder)
  return holder
end

-- A new request, at the end of its class. deadline_in_ms: 0 none; name: the requestId that its client chose, '' none.
-- Returns its index.
local function admit(s, id, class, deadline_in_ms, meta, body, tags, name)
  local index = add_item(s, queue(s, 'input'), id, class, name ~= '' and name)
  redis.call('HSET', record(s, id), 'state', 'queued', 'index', index, 'class', class, 'submitted_ms', now,
    'meta', meta, 'body', body, 'tags', tags)
  if name ~= '' then redis.call('HSET', record(s, id), 'name', name) end
  redis.call('ZADD', s.wait, score_of(class, index), id)
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

-- Puts an item at the end of a bounded queue; the oldest leave when it is full, unless it holds.
local function list_ended(s, name, item, class, request_id)
  local k = queue(s, name)
  local index = add_item(s, k, item, class, request_id)
  if s.hold and name == 'sink' then return index end
  local over = redis.call('ZCARD', k.items) - s.max_sink
  if over > 0 then
    for _, oldest in ipairs(redis.call('ZRANGE', k.items, 0, math.min(over, EVICTED_MOST) - 1)) do
      drop_item(s, k, oldest)
    end
  end
  return index
end

local ENDING_FIELDS = { 'events', 'idem', 'log_n', 'class', 'name' } -- what finish_record needs to know of a record

-- Common end of every request. state: a terminal one; fields: flat list of further record fields, which is used up;
-- had: ENDING_FIELDS of the record where the caller has read them.
-- is_unlisted: it gets no item in the sink. The caller has taken the id out of wait, delay, lease and dl.
local function finish_record(s, id, state, fields, celery_status, celery_json, had, is_unlisted)
  local r = record(s, id)
  had = had or redis.call('HMGET', r, unpack(ENDING_FIELDS))
  local function set(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  local stays = leave_input(s, id, number(had[4]), had[5])
  if s.sink_on and not is_unlisted and (state == 'succeeded' or state == 'failed') then
    set('sink_index', list_ended(s, 'sink', id, NORMAL, had[5]))
    due(s, now + s.ttl_ms)
  end
  set('events', number(had[1]) + 1)
  redis.call('HSET', r, 'state', state, 'finished_ms', now, unpack(fields))
  -- only dead letters may be sent again
  if stays or state == 'failed' then redis.call('HDEL', r, 'token')
  else redis.call('HDEL', r, 'token', 'body') end
  if had[2] then redis.call('PEXPIRE', s.idempotency .. had[2], s.ttl_ms) end
  if had[3] then redis.call('PEXPIRE', s.logs .. id, s.ttl_ms) end
  redis.call('PEXPIRE', r, s.ttl_ms)
  celery_record(s, id, celery_status, celery_json)
  redis.call('PUBLISH', NOTE_PREFIX .. id, state)
end

local function dead_letter(s, id)
  list_ended(s, 'rear', id, NORMAL, redis.call('HGET', record(s, id), 'name'))
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

local WORK_FIELDS = { 'attempt', 'deadline_ms', 'meta', 'body', 'submitted_ms', 'lease_seq', 'events', 'index' }

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
      touched[s.name], s.last = s, f[8]
      got[#got + 1] = { s.name, id, token, attempt, f[3], f[4] or '', f[5], deadline_ms, now }
      bytes = bytes + #(f[4] or '')
    end
    touch(s, at)
  end
  if next(touched) then
    redis.call('HSET', SYS, 'vt', sys_vt, 'claims', claims)
    for _, s in pairs(touched) do redis.call('HSET', s.cfg, 'vtime', s.vtime, 'last', s.last) end
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
