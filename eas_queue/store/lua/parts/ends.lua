-- Slots, and how a request ends or goes back.

local function take_slot(s, id, lease_ms)
  redis.call('ZADD', s.lease, now + lease_ms, id)
  redis.call('ZADD', s.run, now, id)
  due(s, now + lease_ms)
end

local function free_slot(s, id)
  redis.call('ZREM', s.lease, id)
  redis.call('ZREM', s.run, id)
end

-- A taker has it no more: a sequential lane that waited for that has its next one, and a held sink room for another.
-- Returns whether one had it.
local function free_taker(s, id)
  if redis.call('HDEL', record(s, id), 'taker') == 0 then return false end
  local sole = redis.call('HMGET', s.cfg, 'sole0', 'sole1')
  if sole[1] == id or sole[2] == id or s.hold then tell_watchers(s) end
  return true
end

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
local function celery_record(id, status, result_json, lives_ms)
  local text = '{"status": "' .. status .. '", "result": ' .. result_json
    .. ', "traceback": null, "children": [], "date_done": "' .. iso_date() .. '", "task_id": "' .. id .. '"}'
  local key = CELERY_RESULT_PREFIX .. id
  redis.call('SET', key, text, 'PX', lives_ms)
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

local ENDING_FIELDS = { 'events', 'idem', 'log_n', 'class', 'name', 'brief_ms', 'hook' } -- what finish_record needs to know

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
  local lives_ms = math.min(s.ttl_ms, tonumber(had[6] or s.ttl_ms))
  local stays = leave_input(s, id, number(had[4]), had[5], had[6])
  if s.sink_on and not is_unlisted and not had[6] and (state == 'succeeded' or state == 'failed') then
    set('sink_index', list_ended(s, 'sink', id, NORMAL, had[5]))
    due(s, now + s.ttl_ms)
  end
  set('events', number(had[1]) + 1)
  redis.call('HSET', r, 'state', state, 'finished_ms', now, unpack(fields))
  -- only dead letters may be sent again
  if stays or state == 'failed' and not had[6] then redis.call('HDEL', r, 'token')
  else redis.call('HDEL', r, 'token', 'body') end
  if had[2] then redis.call('PEXPIRE', s.idempotency .. had[2], lives_ms) end
  if had[3] then redis.call('PEXPIRE', s.logs .. id, lives_ms) end
  redis.call('PEXPIRE', r, lives_ms)
  if had[7] then webhooks().leave(s, id, state, had[7], lives_ms) end
  if s.pull and (state == 'succeeded' or state == 'failed') then
    redis.call('HINCRBY', s.cfg, 'done' .. (number(had[4]) > NORMAL and 1 or 0), 1)
  end
  celery_record(id, celery_status, celery_json, lives_ms)
  redis.call('PUBLISH', NOTE_PREFIX .. id, state)
end

local function dead_letter(s, id)
  local f = redis.call('HMGET', record(s, id), 'name', 'brief_ms')
  if f[2] then return end -- without its body it could not be sent again
  list_ended(s, 'rear', id, NORMAL, f[1])
  due(s, now + s.ttl_ms)
end

-- How often it may be delivered: as its submit said, else as its service says; once, where that says once.
local function attempts_most(s, own) return s.max_attempts == 1 and 1 or tonumber(own or s.max_attempts) end

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
    tell_watchers(s)
  end
  if number(f[3]) > 0 then
    redis.call('ZADD', s.dl, f[3], id)
    due(s, number(f[3]))
  end
  changed(s, id, 'queued')
end
