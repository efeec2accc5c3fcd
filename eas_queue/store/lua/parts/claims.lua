-- How workers get requests.

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
