#!lua flags=allow-oom
-- with items, groups, hooks, ends, outcomes, consumers
-- Items of a queue by index, requestId or tags, whether or not any group has had them; and, if asked, out of the queue.
-- ARGV[1] service  [2] queue  [3] from this index on, -1: only the newest  [4] items at most  [5] requestId ('' any)
-- ARGV[6] filter: tags that it must have, as "key=value&.."  [7] 1: remove them  [8] items looked at, at most
-- ARGV[9] bytes, at most, but one item at least  [10] kick id  [11] 0: without data
-- ARGV[12] class ('' any)
-- RETURNS {index up to which was looked, 1 when there is more behind it, rows of {index, tags, data, type}}
local s = service(ARGV[1])
local k, from, most, name, filter = queue(s, ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local removes, looks, bytes_most, with_data = ARGV[7] == '1', tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[11] ~= '0'
local class = tonumber(ARGV[12])
local rows, gone, bytes, reached, more = {}, {}, 0, from - 1, 0

local function class_of(item) return 255 - math.floor(score_in(k, item, 0) / LEVELS) end

local function take(item)
  if class and class_of(item) ~= class then return end
  if filter ~= '' and not has_tags(tags_of(s, k, item), filter) then return end
  local row = view(s, k, item, with_data)
  rows[#rows + 1], bytes = row, bytes + #row[3]
  if removes then gone[#gone + 1] = item end
end

if name ~= '' then
  local found = {} -- a request or an item by its own id, and those whose clients chose this requestId
  for _, item in ipairs({ name, 'i' .. name }) do
    local index = redis.call('ZSCORE', k.items, item)
    if index and not redis.call('HGET', queue_key(k, NAMES_SUFFIX), item) then found[#found + 1] = { tonumber(index), item } end
  end
  local low = '[' .. name .. '\0' .. string.format('%016d', math.max(from, 0))
  local entries = redis.call('ZRANGE', queue_key(k, NAMED_SUFFIX), low, '[' .. name .. '\1', 'BYLEX', 'LIMIT', 0, looks)
  local last = math.huge -- so far all are known
  for i, entry in ipairs(entries) do
    local index, item = string.match(entry, '%z(%d+)%z([^%z]+)$')
    found[#found + 1] = { tonumber(index), item }
    if i == looks then last, more = tonumber(index), 1 end
  end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  for _, each in ipairs(found) do
    if #rows >= most or bytes >= bytes_most or each[1] > last then
      more = 1
      break
    end
    if each[1] >= from then take(each[2]) end
    reached = math.max(reached, each[1])
  end
elseif from < 0 then
  local item = redis.call('ZRANGE', k.items, -1, -1)[1]
  if item then take(item) end
else
  while looks > 0 and #rows < most and bytes < bytes_most do
    local chunk = math.min(looks, filter == '' and most - #rows or 100)
    local found = redis.call('ZRANGE', k.items, '(' .. string.format('%d', reached), '+inf', 'BYSCORE', 'LIMIT', 0, chunk,
      'WITHSCORES')
    if not found[1] then break end
    for i = 1, #found, 2 do
      if #rows >= most or bytes >= bytes_most then break end
      take(found[i])
      reached, looks = tonumber(found[i + 1]), looks - 1
    end
  end
  if #rows < most then
    local newest = redis.call('ZRANGE', k.items, -1, -1, 'WITHSCORES')[2]
    if newest and tonumber(newest) > reached then more = 1 end
  end
end
for _, item in ipairs(gone) do remove_item(s, k, item, 'read and deleted by a client of the queue') end
if #gone > 0 then
  sink_has_room(s)
  kick(ARGV[10])
end
return { reached, more, rows }
