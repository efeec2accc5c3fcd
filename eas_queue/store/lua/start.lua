#!lua flags=allow-oom
-- with items, groups, hooks, ends, claims
-- A kick has arrived at a process with free seats: forget the kick and lease the best requests.
-- ARGV[1] kick id ('' when a running process asks for more)  [2] how many at most  [3] caller  [4] nonce of this call
-- ARGV[5] lease, ms
-- RETURNS list of {service, id, token, attempt, meta, body, submitted_ms, deadline_ms,
-- started_ms}
local got = recall(ARGV[3], ARGV[4])
if got then return got end
redis.call('ZREM', KICKS, ARGV[1])
got = claim(tonumber(ARGV[2]), ARGV[4], tonumber(ARGV[5]))
remember(ARGV[3], ARGV[4], got)
kick(ARGV[4])
return got
