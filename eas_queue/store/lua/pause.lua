#!lua flags=allow-oom
-- Pause a service (it accepts requests and starts none) or resume it.
-- ARGV[1] service  [2] '1' pause, '0' resume  [3] kick id
-- RETURNS 1 when that changed something, 0 when it was so | CODES -1 the service is not registered
local s = service(ARGV[1])
if not s.known then return -1 end
local want = ARGV[2] == '1'
if s.paused == want then return 0 end
redis.call('HSET', s.cfg, 'paused', ARGV[2])
s.paused = want
touch(s)
if not want then call_watchers(s) end
kick(ARGV[3])
return 1
