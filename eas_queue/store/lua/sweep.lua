#!lua flags=allow-oom
-- with items, groups, hooks, ends, outcomes, consumers
-- Bring time to bear: lapsed leases go back to the queue, due retries become startable, passed deadlines expire, ended
-- ghosts free their slot, lists of ended requests and their deliveries lose what is past its time, lost kicks are issued
-- again.
-- Costs as much as there is due, in bounded steps: what remains is due again at once.
-- ARGV[1] how long no other sweep runs, ms  [2] kick id  [3] items at most, of all services together
-- ARGV[4] how many ends that no worker saw the caller will report, at most
-- ARGV[5] the process that calls  [6] what it is, JSON: it is alive, sweep or not
-- RETURNS {list of "service id state" to report, services, lapsed, due retries, expired, forgotten kicks,
-- 1 when more is due: whoever sweeps next may do so at once}
-- | CODES {list} another sweep ran just now: nothing but the reports
-- Whoever can report takes the reports, sweep or not: processes that can't may be the ones that always win the sweep.
redis.call('HSET', ALIVE, ARGV[5], now .. ' ' .. ARGV[6])
local report = tonumber(ARGV[4]) > 0 and redis.call('RPOP', UNREPORTED, ARGV[4]) or {}
if not redis.call('SET', SWEEP_LOCK, '1', 'NX', 'PX', ARGV[1]) then return { report } end
local ALIVE_MS = 60000 -- a process that has not called for so long is forgotten
local left = tonumber(ARGV[3])
local lapsed, retried, expired, forgotten = 0, 0, 0, 0
redis.call('HSET', SYS, 'swept_ms', now)
local alive = redis.call('HGETALL', ALIVE)
for i = 1, #alive, 2 do
  if now - number(string.match(alive[i + 1], '^%d+')) > ALIVE_MS then redis.call('HDEL', ALIVE, alive[i]) end
end

local function up_to_now(key)
  local found = redis.call('ZRANGE', key, '-inf', now, 'BYSCORE', 'LIMIT', 0, left)
  left = left - #found
  return found
end

-- Items live as long as their records; the lists are in order of ending, so the head knows the next moment.
local function trim(s, name)
  local k = queue(s, name)
  while left > 0 do
    local head = redis.call('ZRANGE', k.items, 0, 0)[1]
    if not head then return nil end
    local lives_ms = redis.call('PTTL', is_own(head) and s.own .. head or record(s, head))
    if lives_ms > 0 then return now + lives_ms end
    drop_item(s, k, head)
    left = left - 1
  end
  return now
end

local hooks = webhooks()
local function trim_hooks(s)
  while left > 0 do
    local head = redis.call('ZRANGE', s.hooks, 0, 0)[1]
    if not head then return nil end
    local lives_ms = redis.call('PTTL', record(s, head))
    if lives_ms > 0 then return now + lives_ms end
    hooks.drop(s, head)
    left = left - 1
  end
  return now
end

-- Groups without consumers are waited for a minute. Then what only they had not read goes, and in the end themselves.
local WAITED_FOR_MS = 60000
local function look_after(s, name)
  local k, next_ms = queue(s, name), math.huge
  local gone = redis.call('ZRANGE', queue_key(k, CONSUMERS_SUFFIX), '-inf', now - LEFT_MS, 'BYSCORE', 'LIMIT', 0, left)
  left = left - #gone
  for _, consumer in ipairs(gone) do redis.call('ZREM', queue_key(k, CONSUMERS_SUFFIX), consumer) end
  local first = redis.call('ZRANGE', queue_key(k, CONSUMERS_SUFFIX), 0, 0, 'WITHSCORES')[2]
  if first and tonumber(first) < math.huge then next_ms = tonumber(first) + LEFT_MS end
  local found = redis.call('ZRANGE', queue_key(k, GROUPS_SUFFIX), '-inf', '(inf', 'BYSCORE', 'WITHSCORES')
  for i = 1, #found, 2 do
    local since = tonumber(found[i + 1])
    if since > 0 and since + WAITED_FOR_MS <= now then
      redis.call('ZADD', queue_key(k, GROUPS_SUFFIX), -since, found[i])
      redis.call('HSET', s.cfg, 'pinned:' .. name, 0) -- look through the queue from its head
      since = -since
    end
    if since < 0 and now + since > s.ttl_ms then
      forget_group(k, found[i])
    else
      next_ms = math.min(next_ms, since > 0 and since + WAITED_FOR_MS or s.ttl_ms - since + 1)
    end
  end
  local from = redis.call('HGET', s.cfg, 'pinned:' .. name)
  while from and left > 0 do
    local items = redis.call('ZRANGE', k.items, '(' .. from, '+inf', 'BYSCORE', 'LIMIT', 0, math.min(left, 100), 'WITHSCORES')
    if not items[1] then
      redis.call('HDEL', s.cfg, 'pinned:' .. name)
      return next_ms
    end
    for i = 1, #items, 2 do
      left, from = left - 1, items[i + 1]
      local is_wanted, concerns = wanted(s, k, items[i])
      if concerns and not is_wanted then done_with(s, k, items[i]) end
    end
    redis.call('HSET', s.cfg, 'pinned:' .. name, from)
  end
  return from and now or next_ms
end

-- Whoever worked on a request has not been heard of in time.
local function lapse(s, id)
  local f = redis.call('HMGET', record(s, id), 'attempt', 'attempts_most', 'taker', 'deliveries_most', 'answer_by',
    'deadline_ms')
  local attempt, most, kind = number(f[1]), attempts_most(s, f[2]), 'WorkerLost'
  local text = 'the worker that held attempt ' .. attempt .. ' was lost'
  if f[3] then
    if f[5] and number(f[6]) > 0 and number(f[6]) <= now then return end_late(s, id, 'running') end
    kind, text = 'TakerLost', 'the taker of attempt ' .. attempt .. ' did not complete it in time'
    if f[4] and f[4] ~= '' and most > 1 then most = f[4] == '-1' and math.huge or tonumber(f[4]) end
  end
  free_slot(s, id)
  free_taker(s, id)
  if attempt >= most then
    finish_record(s, id, 'failed', { 'status_code', '502', 'from_target', '0', 'error_type', kind, 'error', text },
      'FAILURE', failure_json(kind, text, 'eas_queue.engine.errors'))
    dead_letter(s, id)
    leave_report(s, id, 'failed')
  else
    redis.call('HSET', record(s, id), 'error_type', kind, 'error', text)
    requeue(s, id, 0)
  end
end

-- Consumers whose process has died.
for _, process in ipairs(redis.call('ZRANGE', WATCHERS, '-inf', now, 'BYSCORE', 'LIMIT', 0, 10)) do
  local watches = WATCHES_PREFIX .. process
  for _, entry in ipairs(redis.call('SRANDMEMBER', watches, left)) do
    if left <= 0 then break end
    local name, queue_name, consumer = string.match(entry, '^(%S+) (%S+) (%S+)$')
    local s = service(name)
    local k = queue(s, queue_name)
    if redis.call('HGET', consumer_key(k, consumer), 'process') == process then release(s, k, consumer) end
    redis.call('SREM', watches, entry)
    left = left - 1
  end
  if redis.call('EXISTS', watches) == 0 then redis.call('ZREM', WATCHERS, process) end
end

local names = redis.call('ZRANGE', DUE, '-inf', now, 'BYSCORE', 'LIMIT', 0, 200)
for _, name in ipairs(names) do
  if left <= 0 then break end -- it stays due
  local s = service(name)
  for _, id in ipairs(up_to_now(s.lease)) do
    lapsed = lapsed + 1
    lapse(s, id)
  end
  for _, member in ipairs(up_to_now(s.ghost)) do -- its holder died, and will not tell Flower that it was cancelled
    redis.call('ZREM', s.ghost, member)
    leave_report(s, string.match(member, '^[^/]+'), 'cancelled')
  end
  for _, id in ipairs(up_to_now(s.dl)) do
    expire(s, id)
    expired = expired + 1
  end
  for _, id in ipairs(up_to_now(s.delay)) do
    redis.call('ZREM', s.delay, id)
    requeue(s, id, 0)
    retried = retried + 1
  end
  local kept = queue(s, 'input')
  for _, id in ipairs(up_to_now(s.kept)) do
    redis.call('ZREM', s.kept, id)
    drop_item(s, kept, id)
  end
  local next_ms = math.huge
  for _, key in ipairs({ s.lease, s.ghost, s.dl, s.delay, s.kept }) do
    local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if head[1] then next_ms = math.min(next_ms, tonumber(head[2])) end
  end
  for _, queue_name in ipairs({ 'sink', 'rear', 'sink_rear' }) do
    next_ms = math.min(next_ms, trim(s, queue_name) or math.huge)
  end
  next_ms = math.min(next_ms, trim_hooks(s) or math.huge)
  for _, queue_name in ipairs({ 'input', 'sink', 'rear', 'sink_rear' }) do
    next_ms = math.min(next_ms, look_after(s, queue_name))
  end
  if next_ms < math.huge then redis.call('ZADD', DUE, next_ms, name) else redis.call('ZREM', DUE, name) end
  if s.hold then tell_watchers(s) end
  touch(s)
end

-- A kick that is in no list and was not taken within a second was lost, or dropped by a process without a free seat.
if redis.call('LLEN', QUEUE_NORMAL) + redis.call('LLEN', QUEUE_HIGH) == 0 then
  forgotten = redis.call('ZREMRANGEBYSCORE', KICKS, '-inf', now - 1000)
end
kick(ARGV[2])
hooks.kick(ARGV[2])
if left <= 0 then redis.call('DEL', SWEEP_LOCK) end
return { report, #names, lapsed, retried, expired, forgotten, left <= 0 and 1 or 0 }
