#!lua
-- with items, groups
-- Submit dead letters again, each as a new request: the old one has ended and stays ended. Refused while out of memory.
-- Idempotent by the pair of ids. The new ones wait at the end of their class.
-- ARGV[1] service  [2] max_queue_length  [3] deadline, ms from now (0 none)  [4] kick id  [5..] old id, new id per letter
-- RETURNS per letter {old id, new id}; new id '' for what is no dead letter (any more), '-' when the queue is full,
-- '+' for what is left for another call, because the bodies so far are large
local s, rows, bytes = service(ARGV[1]), {}, 0
for i = 5, #ARGV, 2 do
  local id, new = ARGV[i], ARGV[i + 1]
  local r = record(s, id)
  local f = redis.call('HMGET', r, 'class', 'meta', 'body', 'redriven_as', 'tags', 'name', 'attempts_most', 'hook', 'about')
  if f[4] ~= new then
    if not f[3] or not redis.call('ZSCORE', s.rear, id) then
      new = ''
    elseif bytes >= CLAIM_BYTES_MAX then
      new = '+'
    elseif waiting(s) >= tonumber(ARGV[2]) then
      new = '-'
    else
      admit(s, new, tonumber(f[1]), tonumber(ARGV[3]), f[2], f[3], f[5] or '&', f[6] or '')
      if f[7] then redis.call('HSET', record(s, new), 'attempts_most', f[7]) end
      if f[8] then redis.call('HSET', record(s, new), 'hook', f[8]) end
      if f[9] then redis.call('HSET', record(s, new), 'about', f[9]) end
      drop_item(s, queue(s, 'rear'), id)
      redis.call('HDEL', r, 'body')
      redis.call('HSET', r, 'redriven_as', new)
      bytes = bytes + #f[3]
    end
  end
  rows[#rows + 1] = { id, new }
end
touch(s)
kick(ARGV[4])
return rows
