#!lua
-- with items
-- Store a new request in its service's queue and, where it can start, announce work: one step, all or nothing.
-- Refused whole while the server is out of memory. Idempotent by id, and by the client's own key where it sent one:
-- sent again, it answers what it answered first.
-- ARGV[1] service  [2] id  [3] its number as the caller knows it  [4] class 0..255  [5] deadline, ms from now (0 none)
-- ARGV[6] max_queue_length  [7] meta, JSON  [8] body
-- ARGV[9] digest of the idempotency key ('' none)  [10] fingerprint of what is submitted
-- ARGV[11] whose rate is limited ('' nobody's)  [12] ms between two submits  [13] how many may come at once
-- ARGV[14] tags, as "&key=value&..&", both parts percent-encoded  [15] the requestId that the client chose ('' none)
-- ARGV[16] 1: only where consumers pull
-- ARGV[17..] what is its own instead of its service's: further fields of the record, name and value each
-- RETURNS {1, index, state, submitted_ms, id, replayed: 1 when the key had been used}
-- | CODES {0, waiting} full, {-1} the service is not registered: do that first, {-2, ms} too fast: not before then,
-- {-3} the key was used for another submit, {-4} consumers do not pull from the service
local name, id = ARGV[1], ARGV[2]
local s = service(name)
if not s.known or s.number ~= ARGV[3] then return { -1 } end

if ARGV[16] == '1' and not s.pull then return { -4 } end

local function answer(known, replayed)
  local before = redis.call('HMGET', record(s, known), 'index', 'state', 'submitted_ms')
  return before[1] and { 1, before[1], before[2], before[3], known, replayed }
end

local known = answer(id, 0)
if known then return known end
local key = ARGV[9] ~= '' and s.idempotency .. ARGV[9]
local used = key and redis.call('GET', key)
if used then
  local first, fingerprint = string.match(used, '^(%S+) (%S+)$')
  known = answer(first, 1)
  if known then return fingerprint == ARGV[10] and known or { -3 } end
end

local rate_key, full_at = ARGV[11] ~= '' and RATE_PREFIX .. ARGV[11], 0
if rate_key then -- a bucket that fills by one each ARGV[12] ms, kept as the moment at which it is full
  local holds = ARGV[12] * ARGV[13]
  -- Small numbers are compared, and whole milliseconds: next to `now` a double's steps would refuse for ever.
  -- More than an empty bucket comes of a clock that was set back.
  local used = math.min(math.max(number(redis.call('GET', rate_key)) - now, 0), holds) + ARGV[12]
  if used - holds >= 1 then return { -2, math.ceil(used - holds) } end
  full_at = now + used
end
local before = waiting(s)
if before >= tonumber(ARGV[6]) then return { 0, before } end

if rate_key then redis.call('SET', rate_key, string.format('%.3f', full_at), 'PX', math.max(1, math.ceil(full_at - now))) end
local class = tonumber(ARGV[4])
local index = admit(s, id, class, tonumber(ARGV[5]), ARGV[7], ARGV[8], ARGV[14], ARGV[15])
if ARGV[17] then redis.call('HSET', record(s, id), unpack(ARGV, 17)) end
if key then
  redis.call('SET', key, id .. ' ' .. ARGV[10])
  redis.call('HSET', record(s, id), 'idem', ARGV[9])
end
joined(s, class)
kick(id)
return { 1, index, 'queued', now, id, 0 }
