#!lua flags=allow-oom
-- with items, groups, hooks, ends, outcomes
-- Cancel a request, whether or not any worker is alive. Waiting: it is never sent. Running: it ends now, its holder is
-- told to close the connection and keeps its slot (as a ghost) until that is done.
-- ARGV[1] service  [2] id  [3] kick id
-- RETURNS what it was: 'queued', 'running', 'cancelled' (already), another terminal state (nothing changed) | '' unknown
local s, id = service(ARGV[1]), ARGV[2]
local f = redis.call('HMGET', record(s, id), 'state')
local state = f[1]
if not state then return '' end
if state ~= 'queued' and state ~= 'running' then return state end
cancel_request(s, id, state, 'cancelled by a client')
kick(ARGV[3])
return state
