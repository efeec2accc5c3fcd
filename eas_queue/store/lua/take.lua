#!lua flags=allow-oom
-- with items, groups, hooks, ends
-- Lease requests to a taker from the lanes that it names, in the order that its strategy asks for: one step over all of
-- them. A lane is one half of a service's queue: what has high priority, or the rest. Nothing leaves a queue that is not
-- returned. Requests past their deadline end on the way. Idempotent by nonce.
-- ARGV[1] nonce  [2] strategy  [3] requests at most  [4] lease, ms; 0: until the deadline  [5] deliveries at most, -1: any
-- [6] not those that were submitted less than so many ms ago  [7] taker  [8] name of the turn of round_robin ('' none)
-- [9] 1: sent again, because the connection broke  [10..] per lane: service, 1: high priority, requests of it at most
-- RETURNS rows of {lane, id, attempt, submitted_ms, deadline_ms, lease's end, meta, about, body, endpoint of the service}
-- | CODES -n: consumers do not pull from the service of lane n, so that nothing was taken from any
local nonce, strategy, most, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local deliveries_most, min_age_ms, taker, turn = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local NO_DEADLINE_MS = 86400000 -- what was taken without a time, and need not be answered by one, is its taker's for a day
local TURN_LIVES_S, NONCE_LIVES_MS = 86400, 10000
local lanes, by_name = {}, {}

for i = 10, #ARGV, 3 do
  local s, flag = service(ARGV[i]), ARGV[i + 1]
  if not s.known or not s.pull then return -(#lanes + 1) end
  local name = s.name .. ' ' .. flag
  local lane = by_name[name]
  if not lane then
    local border = string.format('%d', HIGH_BELOW)
    lane = { number = #lanes + 1, s = s, flag = flag, left = tonumber(ARGV[i + 2]), taken = 0,
      low = flag == '1' and 0 or HIGH_BELOW, limit = flag == '1' and '(' .. border or '+inf' }
    by_name[name] = lane
  end
  lanes[#lanes + 1] = lane
end

local rows, bytes, looks, lines = {}, 0, EXPIRED_PER_CLAIM_MAX, { nonce }

local function give(lane, id)
  local s = lane.s
  local f = redis.call('HMGET', record(s, id), 'attempt', 'submitted_ms', 'deadline_ms', 'meta', 'about', 'body')
  lane.endpoint = lane.endpoint or redis.call('HGET', s.cfg, 'endpoint') or ''
  rows[#rows + 1] = { lane.number, id, number(f[1]), number(f[2]), number(f[3]), number(redis.call('ZSCORE', s.lease, id)),
    f[4], f[5] or '', f[6] or '', lane.endpoint }
  bytes = bytes + #rows[#rows][9]
end

-- The answer to this call was lost on its way: what it gave is given again, and nothing else.
local kept = redis.call('GET', CALL_PREFIX .. nonce)
if kept then
  for at, id in string.gmatch(kept, '\n(%d+) (%S+)') do
    local lane = lanes[tonumber(at)]
    local token = redis.call('HGET', record(lane.s, id), 'token')
    if token and string.sub(token, -#nonce) == nonce then give(lane, id) end
  end
  return rows
end

-- Finds the best request of the lane that may be taken, which stays there: lane.id, and its fields.
local function head_of(lane)
  local s = lane.s
  if lane.left <= 0 or s.paused or is_held(s) then return false end
  if lane.id then return true end
  while looks > 0 do
    looks = looks - 1
    local head = redis.call('ZRANGE', s.wait, string.format('%d', lane.low), lane.limit, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    local id = head[1]
    if not id then break end
    local f = redis.call('HMGET', record(s, id), 'attempt', 'deadline_ms', 'lease_seq', 'events', 'index', 'submitted_ms',
      'answer_by', 'refused_by')
    if number(f[2]) > 0 and number(f[2]) <= now then
      expire(s, id)
    elseif min_age_ms > 0 and number(f[6]) > now - min_age_ms then
      lane.low = (math.floor(tonumber(head[2]) / LEVELS) + 1) * LEVELS -- the others of its class are younger
    else
      lane.id, lane.fields, lane.submitted_ms = id, f, number(f[6])
      return true
    end
  end
  lane.left = 0
  return false
end

local function lease(lane)
  local s, id, f = lane.s, lane.id, lane.fields
  local r, attempt, lease_seq, deadline_ms = record(s, id), number(f[1]) + 1, number(f[3]) + 1, number(f[2])
  local ends_ms = now + (lease_ms > 0 and lease_ms or NO_DEADLINE_MS)
  if f[7] and deadline_ms > 0 then ends_ms = lease_ms > 0 and math.min(ends_ms, deadline_ms) or deadline_ms end
  redis.call('ZREM', s.wait, id)
  if deadline_ms > 0 then redis.call('ZREM', s.dl, id) end
  if f[8] then redis.call('HDEL', r, 'refused_by') end
  redis.call('HSET', r, 'state', 'running', 'attempt', attempt, 'lease_seq', lease_seq, 'started_ms', now,
    'token', lease_seq .. '.' .. #rows .. '.' .. nonce, 'taker', taker, 'events', number(f[4]) + 1,
    'deliveries_most', lease_ms > 0 and deliveries_most or '')
  take_slot(s, id, ends_ms - now)
  redis.call('PUBLISH', NOTE_PREFIX .. id, 'running')
  give(lane, id)
  lines[#lines + 1] = lane.number .. ' ' .. id
  lane.id, lane.left, lane.taken, lane.last = nil, lane.left - 1, lane.taken + 1, f[5]
end

local function has_room() return #rows < most and bytes < CLAIM_BYTES_MAX end

local take_by = {}

-- What was submitted first; of two at the same time, that of the lane named first.
function take_by.fifo()
  while has_room() do
    local best
    for _, lane in ipairs(lanes) do
      if head_of(lane) and (not best or lane.submitted_ms < best.submitted_ms) then best = lane end
    end
    if not best then return end
    lease(best)
  end
end

-- All of the first lane before any of the next.
function take_by.active_passive()
  for _, lane in ipairs(lanes) do
    while has_room() and head_of(lane) do lease(lane) end
  end
end

-- One of each in turn. The turn goes on where the last take with this name ended.
function take_by.round_robin()
  local key = TURN_PREFIX .. turn
  local at, idle = number(redis.call('GET', key)) % #lanes, 0
  while has_room() and idle < #lanes do
    local lane = lanes[at + 1]
    at, idle = (at + 1) % #lanes, idle + 1
    if head_of(lane) then
      lease(lane)
      idle = 0
    end
    if idle == 0 then take_by.next_at = at end
  end
  if take_by.next_at then redis.call('SET', key, take_by.next_at, 'EX', TURN_LIVES_S) end
end

-- One of each lane, and none of a lane whose last one given so is still out.
function take_by.sequential()
  for _, lane in ipairs(lanes) do
    local out = has_room() and redis.call('HGET', lane.s.cfg, 'sole' .. lane.flag)
    if has_room() and not (out and redis.call('ZSCORE', lane.s.lease, out)) and head_of(lane) then
      redis.call('HSET', lane.s.cfg, 'sole' .. lane.flag, lane.id)
      lease(lane)
    end
  end
end

take_by[strategy]()
for _, lane in pairs(by_name) do
  if lane.taken > 0 then
    redis.call('HINCRBY', lane.s.cfg, 'taken' .. lane.flag, lane.taken)
    redis.call('HSET', lane.s.cfg, 'last', lane.last, 'pulled', nonce)
  end
end
-- Of a call that was sent again a copy may still be on its way: nobody would have what it leased.
if #rows > 0 or ARGV[9] == '1' then
  redis.call('SET', CALL_PREFIX .. nonce, table.concat(lines, '\n'), 'PX', NONCE_LIVES_MS)
end
kick(nonce)
return rows
