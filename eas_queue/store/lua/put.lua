#!lua
-- with items, groups, hooks, ends, outcomes, consumers
-- A client puts an item of its own into the sink or a rear. Refused whole while the server is out of memory. Idempotent by
-- its id. An item of the sink that names a request which a consumer works on is that request's result.
-- ARGV[1] service  [2] queue  [3] id of the item  [4] class 0..255  [5] tags with its requestId, as "&key=value&..&"
-- ARGV[6] the requestId where the client chose it ('' none)  [7] data  [8] its headers, JSON ('' none)  [9] kick id
-- ARGV[10] as a result: succeeded or failed  [11] status code  [12] headers, JSON  [13] Celery's result, JSON
-- RETURNS {1, index} | CODES {0, length} the sink is full and holds what it has, {-1} the service is not registered
local s, item, name = service(ARGV[1]), 'i' .. ARGV[3], ARGV[6] ~= '' and ARGV[6]
if not s.known then return { -1 } end
local k = queue(s, ARGV[2])
local known = redis.call('ZSCORE', k.items, item)
if known then return { 1, tonumber(known) } end
local length = redis.call('ZCARD', k.items)
if s.hold and k.name == 'sink' and length >= s.max_sink then return { 0, length } end
local ts = (k.name == 'sink' or k.name == 'sink_rear') and 'ts%40sink=' or 'ts%40source='
redis.call('HSET', s.own .. item, 'tags', ARGV[5] .. ts .. now .. '&', 'data', ARGV[7], 'type', ARGV[8])
redis.call('PEXPIRE', s.own .. item, s.ttl_ms)
local index = list_ended(s, k.name, item, tonumber(ARGV[4]), name)
due(s, now + s.ttl_ms)
if k.name == 'sink' and name then
  local input, id = queue(s, 'input'), nil
  if redis.call('ZSCORE', input.items, name) then
    id = name
  else
    local entry = redis.call('ZRANGE', queue_key(input, NAMED_SUFFIX), '[' .. name .. '\0', '[' .. name .. '\1', 'BYLEX',
      'LIMIT', 0, 1)[1]
    id = entry and string.match(entry, '[^%z]+$')
  end
  if id then
    local f = redis.call('HMGET', record(s, id), 'state', 'holder', 'taker')
    if (f[1] == 'queued' and s.pull) or (f[1] == 'running' and (f[2] or f[3])) then
      end_request(s, id, f[1], ARGV[10], { 'status_code', ARGV[11], 'headers', ARGV[12], 'result', ARGV[7],
        'from_target', '1', 'result_bytes', #ARGV[7], 'won', 'put' },
        ARGV[10] == 'succeeded' and 'SUCCESS' or 'FAILURE', ARGV[13], true)
    end
  end
end
sink_has_room(s)
kick(ARGV[9])
return { 1, index }
