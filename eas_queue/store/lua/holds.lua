#!lua flags=allow-oom
-- A process with consumers is alive.
-- ARGV[1] process  [2] its lease, ms
-- RETURNS 1
redis.call('ZADD', WATCHERS, now + ARGV[2], ARGV[1])
return 1
