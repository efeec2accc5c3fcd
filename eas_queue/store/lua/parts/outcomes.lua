-- What others than the forwarder bring about: a request is cancelled, consumed, answered too late, or handed back.

-- Ends a request that waits or runs. A forwarder's call is closed, and keeps its slot (as a ghost) until that is done.
local function end_request(s, id, state, outcome, fields, celery_status, celery_json, is_unlisted)
  local is_reported = state == 'queued'
  if is_reported then
    redis.call('ZREM', s.wait, id)
    redis.call('ZREM', s.delay, id)
    redis.call('ZREM', s.dl, id)
  else
    free_slot(s, id)
    if free_window(s, id) or free_taker(s, id) then
      is_reported = true
    else
      local token = redis.call('HGET', record(s, id), 'token')
      redis.call('ZADD', s.ghost, now + GHOST_MS, id .. '/' .. token)
      due(s, now + GHOST_MS)
      redis.call('PUBLISH', CANCEL_CHANNEL, id .. ' ' .. token)
    end
  end
  finish_record(s, id, outcome, fields, celery_status, celery_json, nil, is_unlisted)
  if is_reported then leave_report(s, id, outcome) end
  touch(s)
end

-- Nobody has answered it in time, though it waits again, or is somebody's still.
local function end_late(s, id, state)
  end_request(s, id, state, 'expired', { 'error_type', 'Expired', 'error', 'it was not answered before its deadline' },
    'REVOKED', failure_json('TaskRevokedError', 'expired', 'celery.exceptions'))
end

local function cancel_request(s, id, state, why)
  end_request(s, id, state, 'cancelled', { 'error_type', 'Cancelled', 'error', why },
    'REVOKED', failure_json('TaskRevokedError', 'cancelled', 'celery.exceptions'))
end

-- A consumer has done what the request asks for: nothing comes of it but that.
local function consume_request(s, id, state)
  end_request(s, id, state, 'succeeded', { 'status_code', '200', 'headers', '[]', 'result', '', 'from_target', '1',
    'result_bytes', 0, 'won', 'commit' }, 'SUCCESS',
    '{"status": "success", "target_status_code": 200, "content_type": null}', true)
end

-- A request that waits or has just been taken from its watcher ends as a dead letter.
local function fail_request(s, id, error_type, text)
  redis.call('ZREM', s.wait, id)
  redis.call('ZREM', s.delay, id)
  redis.call('ZREM', s.dl, id)
  finish_record(s, id, 'failed', { 'status_code', '502', 'from_target', '0', 'error_type', error_type, 'error', text },
    'FAILURE', failure_json(error_type, text, 'eas_queue.engine.errors'))
  dead_letter(s, id)
  leave_report(s, id, 'failed')
end

-- What a watcher of the lane held waits again, at its old place, or is a dead letter. counts: the attempt is used up.
-- was_given: it may have been begun, so that one which is to be sent once is not sent again.
local function hand_back(s, id, counts, error_type, text, why, was_given)
  local r = record(s, id)
  free_slot(s, id)
  free_window(s, id)
  local f = redis.call('HMGET', r, 'attempt', 'attempts_most')
  if why then redis.call('HSET', r, 'why', why) end
  counts = counts or (was_given and f[2] == '1')
  if counts and number(f[1]) >= attempts_most(s, f[2]) then
    fail_request(s, id, error_type, text)
  else
    redis.call('HSET', r, 'error_type', error_type, 'error', text)
    if not counts then redis.call('HINCRBY', r, 'attempt', -1) end
    requeue(s, id, 0)
  end
  touch(s)
end
