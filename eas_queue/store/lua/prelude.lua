-- The rules that every transition shares. scripts.py puts the key names of keys.py, the Celery message of kick.py, this
-- text and the parts that a script names behind `-- with` in front of it: each function costs every call that defines it.
-- A script is one transition, and nothing else calls Redis for it.
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
  local head = s.pull and {} or redis.call('ZRANGE', s.wait, 0, 0, 'WITHSCORES')
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

-- Watchers of the input in its own group look again: a request that they have not heard of may be startable.
local function tell_watchers(s)
  redis.call('PUBLISH', QUEUE_NOTE_PREFIX .. s.name .. ':input', 'room ' .. s.name)
end

-- ------------------------------------------------------------------------------------------------- changes
-- A request has changed: whoever waits for it looks again. The counter orders its changes for those who resume.
local function changed(s, id, what, by)
  redis.call('HINCRBY', record(s, id), 'events', by or 1)
  redis.call('PUBLISH', NOTE_PREFIX .. id, what)
end

local function waiting(s) return redis.call('ZCARD', s.wait) + redis.call('ZCARD', s.delay) end
