#!lua flags=allow-oom
-- with hooks
-- Take deliveries that are due, from one receiver after the other; those whose lease has lapsed are due again.
-- Idempotent by nonce: sent again, it hands out what it handed out first.
-- ARGV[1] how many at most  [2] lease, ms  [3] caller  [4] nonce  [5] attempts that a delivery is given
-- RETURNS per delivery {service, id, token, attempt, the record's hook, JSON}
local hooks = webhooks()
local most, nonce, got = tonumber(ARGV[1]), ARGV[4], {}

local kept = redis.call('GET', CALL_PREFIX .. ARGV[3])
if kept and string.sub(kept, 1, #nonce) == nonce then
  for name, id in string.gmatch(string.sub(kept, #nonce + 1), '\n(%S+) (%S+)') do
    local s = service(name)
    local f = redis.call('HMGET', s.hook .. id, 'token', 'attempts')
    local hook = redis.call('HGET', record(s, id), 'hook')
    if hook and f[1] and string.sub(f[1], -#nonce) == nonce then
      got[#got + 1] = { name, id, f[1], tonumber(f[2]), hook }
    end
  end
  return got
end

local function lapse(to)
  for _, entry in ipairs(redis.call('ZRANGE', HOOKS_OUT_PREFIX .. to, '-inf', now, 'BYSCORE')) do
    redis.call('ZREM', HOOKS_OUT_PREFIX .. to, entry)
    local name, id = string.match(entry, '^(%S+) (%S+)$')
    local s = service(name)
    local f = redis.call('HMGET', s.hook .. id, 'attempts', 'again')
    if f[1] then
      redis.call('HSET', s.hook .. id, 'last_status', '', 'last_error', 'the process that made it was lost')
      if number(f[1]) >= tonumber(ARGV[5]) and not f[2] then
        hooks.give_up(s, id)
      else
        hooks.put(s, id, to, now, f[2])
      end
    end
  end
end

local looks = 0
while #got < most and looks < most + 100 do -- each look hands one out, drops one, or sends its receiver back
  looks = looks + 1
  local first = redis.call('ZRANGE', HOOKS, 0, 0, 'WITHSCORES')
  if not first[1] or tonumber(first[2]) >= now + 1 then break end
  local to = first[1]
  lapse(to)
  local entry = redis.call('ZRANGE', HOOKS_DUE_PREFIX .. to, '-inf', now, 'BYSCORE', 'LIMIT', 0, 1)[1]
  if entry and redis.call('ZCARD', HOOKS_OUT_PREFIX .. to) < hooks.room_at(to) then
    local name, id = string.match(entry, '^(%S+) (%S+)$')
    local s = service(name)
    local hook, attempts = redis.call('HGET', record(s, id), 'hook'), redis.call('HGET', s.hook .. id, 'attempts')
    redis.call('ZREM', HOOKS_DUE_PREFIX .. to, entry)
    if hook and attempts then
      local attempt, token = tonumber(attempts) + 1, attempts .. '.' .. #got .. '.' .. nonce
      redis.call('HSET', s.hook .. id, 'attempts', attempt, 'token', token)
      redis.call('ZADD', HOOKS_OUT_PREFIX .. to, now + ARGV[2], entry)
      got[#got + 1] = { name, id, token, attempt, hook }
    else
      hooks.drop(s, id)
    end
  end
  hooks.turn(to, true)
end
if got[1] then
  local lines = { nonce }
  for i, row in ipairs(got) do lines[i + 1] = row[1] .. ' ' .. row[2] end
  redis.call('SET', CALL_PREFIX .. ARGV[3], table.concat(lines, '\n'), 'EX', 120)
end
hooks.kick(nonce)
return got
