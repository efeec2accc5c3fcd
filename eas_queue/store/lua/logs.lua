#!lua flags=no-writes
-- The latest lines that the target of a request logged.
-- ARGV[1] service  [2] id  [3] only those after this change  [4] and up to this one  [5] how many at most
-- [6] how many bytes at most; one line always
-- RETURNS lines as they are kept, "change ms level message", oldest first
local s, found, bytes = service(ARGV[1]), {}, 0
local key, after, upto, most = s.logs .. ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local last = -1
while #found < most do -- from the end, a page at a time
  local page = redis.call('LRANGE', key, last - 99, last)
  for i = #page, 1, -1 do
    local event = tonumber(string.match(page[i], '^%d+'))
    bytes = bytes + #page[i]
    if event <= after or #found >= most or (#found > 0 and bytes > tonumber(ARGV[6])) then
      page = {}
      break
    end
    if event <= upto then found[#found + 1] = page[i] end
  end
  if #page < 100 then break end
  last = last - 100
end
local lines = {}
for i = #found, 1, -1 do lines[#lines + 1] = found[i] end
return lines
