#!lua
-- A number that no other copy of a client has, in this installation: copies make numbers of their own for what they
-- submit, and begin with this one. Never less than the seconds of the clock, so that a server that lost the last one
-- gives none twice. A call that is repeated gets another one, which does no harm.
-- RETURNS the number
local number = math.max(tonumber(redis.call('HGET', SYS, 'clones') or 0) + 1, math.floor(now / 1000))
redis.call('HSET', SYS, 'clones', string.format('%d', number))
return number
