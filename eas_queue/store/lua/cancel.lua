#!lua flags=allow-oom
-- Cancel a request, whether or not any worker is alive. Waiting: it is never sent. Running: it ends now, its holder is
-- told to close the connection and keeps its slot (as a ghost) until that is done.
-- ARGV[1] service  [2] id  [3] kick id
-- RETURNS what it was: 'queued', 'running', 'cancelled' (already), another terminal state (nothing changed) | '' unknown
local s, id = service(ARGV[1]), ARGV[2]
local f = redis.call('HMGET', record(s, id), 'state', 'token')
local state = f[1]
if not state then return '' end
if state ~= 'queued' and state ~= 'running' then return state end
redis.call('ZREM', s.wait, id)
redis.call('ZREM', s.delay, id)
redis.call('ZREM', s.dl, id)
if state == 'running' then
  free_slot(s, id)
  redis.call('ZADD', s.ghost, now + GHOST_MS, id .. '/' .. f[2])
  due(s, now + GHOST_MS)
  redis.call('PUBLISH', CANCEL_CHANNEL, id .. ' ' .. f[2])
end
finish_record(s, id, 'cancelled', { 'error_type', 'Cancelled', 'error', 'cancelled by a client' },
  'REVOKED', failure_json('TaskRevokedError', 'cancelled', 'celery.exceptions'))
if state == 'queued' then leave_report(s, id, 'cancelled') end
touch(s)
kick(ARGV[3])
return state
