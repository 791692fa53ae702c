"""The steps of a job that must be atomic in Redis, each one Lua script. The clock is Redis' own, so
that hosts whose clocks differ agree on when a lease ends."""

from cefmp4.storage.redis.scripts import Script

# A record is a hash, so a script changes one field and leaves the others alone.
# The queue of a lane is ordered by priority, then by when a job was submitted; one score holds
# both. However often a job comes back, it stands where it stood: a back-off says only when it is
# ready.
_SHARED = """
local P = 'cefmp4:job:'
local function clock()
  local now = redis.call('TIME')
  return tonumber(now[1]) + tonumber(now[2]) / 1000000
end
local now = clock()
local function text(number) return string.format('%.3f', number) end
local function record(id) return P .. 'record:' .. id end
local function get(id, field)
  local value = redis.pcall('HGET', record(id), field)
  return type(value) == 'string' and value  -- it may be no record at all
end
local function set(id, ...) redis.call('HSET', record(id), 'updated_at', text(now), ...) end
local function move(id, state)
  local before = get(id, 'state')
  if before then redis.call('ZREM', P .. 'state:' .. before, id) end
  redis.call('ZADD', P .. 'state:' .. state, text(now), id)
  set(id, 'state', state)
end
local function score_of(id)
  local since = tonumber(get(id, 'submitted_at') or '') or now
  return text(-(tonumber(get(id, 'priority') or '') or 0) * 10000000000 + since)
end
local function queue(id, delay_s)
  local lane = get(id, 'lane')
  if delay_s > 0 then
    redis.call('ZADD', P .. 'waiting:' .. lane, text(now + delay_s), id)
  else
    redis.call('ZADD', P .. 'queue:' .. lane, score_of(id), id)
  end
  redis.call('HDEL', record(id), 'owner', 'slot')
  set(id, 'due_at', text(now + delay_s))
  move(id, 'queued')
  return redis.call('HINCRBY', record(id), 'round', 1)
end
local function leave_queues(id)
  local lane = get(id, 'lane')
  redis.call('ZREM', P .. 'queue:' .. lane, id)
  redis.call('ZREM', P .. 'waiting:' .. lane, id)
  redis.call('ZREM', P .. 'running', id)
end
local function fail(id, reason, message)
  leave_queues(id)
  set(id, 'reason', reason, 'error', message, 'ended_at', text(now))
  redis.call('HDEL', record(id), 'cancel')
  if get(id, 'fences') then redis.call('SADD', P .. 'litter', id) end
  move(id, 'failed')
end
local function make_due(lane)
  local waiting = P .. 'waiting:' .. lane
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', text(now), 'LIMIT', 0, 200)) do
    redis.call('ZREM', waiting, id)
    redis.call('ZADD', P .. 'queue:' .. lane, score_of(id), id)
  end
end
local function is_ours(id, fence)
  return get(id, 'state') == 'in_progress' and get(id, 'fence') == fence
end
"""

# ARGV: id, kind, lane, spec, priority, max attempts. Answers the round, 0 for one that is known.
SUBMIT = Script(
    _SHARED
    + """
local id, kind, lane, spec, priority, max = unpack(ARGV)
if get(id, 'state') then return 0 end
redis.call('DEL', record(id))  -- something else, or what a list that was none has cut short
set(id, 'kind', kind, 'lane', lane, 'spec', spec, 'priority', priority, 'max_attempts', max,
  'submitted_at', text(now))
return queue(id, 0)
"""
)

# ARGV: lane, owner, lease ms, slot, the job the engine offered. Answers the id and the fence of the
# attempt; nothing where no job waits. A fence starts at the clock, so that it grows even across
# FLUSHALL. The job that was offered but not taken gets a new round: its ticket is spent.
BEGIN = Script(
    _SHARED
    + """
local lane, owner, lease_ms, slot, offered = unpack(ARGV)
make_due(lane)
local id
while true do
  id = redis.call('ZRANGE', P .. 'queue:' .. lane, 0, 0)[1]
  if not id then return {} end
  if get(id, 'state') == 'queued' then break end
  redis.call('ZREM', P .. 'queue:' .. lane, id)
end
leave_queues(id)
if offered ~= id and get(offered, 'state') == 'queued' then
  redis.call('HINCRBY', record(offered), 'round', 1)
end
local fence = redis.call('INCR', P .. 'fence')
if fence < 1000000000000 then
  fence = math.floor(now * 1000)
  redis.call('SET', P .. 'fence', string.format('%.0f', fence))
end
fence = string.format('%.0f', fence)
local fences = get(id, 'fences')
redis.call('HINCRBY', record(id), 'attempts', 1)
redis.call('HDEL', record(id), 'progress')
set(id, 'fence', fence, 'owner', owner, 'slot', slot, 'started_at', text(now),
  'fences', fences and fences .. ',' .. fence or fence)
redis.call('ZADD', P .. 'running', text(now + lease_ms / 1000), id)
move(id, 'in_progress')
return {id, fence}
"""
)

# ARGV: id, fence, lease ms, progress ('' for none). Answers ok, cancel or lost.
HEARTBEAT = Script(
    _SHARED
    + """
local id, fence, lease_ms, progress = unpack(ARGV)
if not is_ours(id, fence) then return 'lost' end
redis.call('ZADD', P .. 'running', text(now + lease_ms / 1000), id)
if progress ~= '' then set(id, 'progress', progress) end
if get(id, 'cancel') then return 'cancel' end
return 'ok'
"""
)

# ARGV: id, fence, result. Answers 0 where the attempt is not the latest any more. From here on the
# result stands: an attempt after this one only publishes it, and a cancel comes too late. The same
# request again, after an answer that was lost, is accepted again.
ACCEPT = Script(
    _SHARED
    + """
local id, fence, result = unpack(ARGV)
local accepted = get(id, 'accepted')
if accepted then return accepted == fence and 1 or 0 end
if not is_ours(id, fence) then return 0 end
redis.call('HDEL', record(id), 'cancel')
set(id, 'accepted', fence, 'result', result)
return 1
"""
)

# ARGV: id, fence. Answers 0 where the attempt is not the latest any more, or has no result.
COMMIT = Script(
    _SHARED
    + """
local id, fence = unpack(ARGV)
if get(id, 'state') == 'complete' and get(id, 'fence') == fence then return 1 end
if not is_ours(id, fence) or not get(id, 'accepted') then return 0 end
leave_queues(id)
redis.call('HDEL', record(id), 'cancel', 'error')
set(id, 'ended_at', text(now))
move(id, 'complete')
return 1
"""
)

# ARGV: id, fence, reason, error. Answers 0 where the attempt is not the latest any more.
FAIL = Script(
    _SHARED
    + """
local id, fence, reason, message = unpack(ARGV)
if not is_ours(id, fence) then return 0 end
fail(id, reason, message)
return 1
"""
)

# ARGV: id, fence, error, delay ms, 1 to give the attempt back, lane to go to ('' for the same).
# With 2 it wrote nothing either, and its fence is forgotten: a record must not grow while a job
# waits for weeks.
# Answers the state it is in now and its round; nothing where the attempt is not the latest.
REQUEUE = Script(
    _SHARED
    + """
local id, fence, message, delay_ms, gives_back, lane = unpack(ARGV)
if not is_ours(id, fence) then return {} end
if gives_back ~= '0' then redis.call('HINCRBY', record(id), 'attempts', -1) end
if gives_back == '2' then
  local before = string.gsub(get(id, 'fences'), ',?' .. fence .. '$', '')
  if before == '' then redis.call('HDEL', record(id), 'fences') else set(id, 'fences', before) end
end
if get(id, 'cancel') then
  fail(id, 'cancelled', 'cancelled')
elseif tonumber(get(id, 'attempts')) >= tonumber(get(id, 'max_attempts')) then
  fail(id, 'dead_letter', message)
else
  leave_queues(id)
  set(id, 'error', message)
  if lane ~= '' then set(id, 'lane', lane) end
  return {'queued', queue(id, tonumber(delay_ms) / 1000)}
end
return {'failed', 0}
"""
)

# ARGV: id. Answers the state it was in: a queued job has failed now, a running one is told to stop.
CANCEL = Script(
    _SHARED
    + """
local id = ARGV[1]
local state = get(id, 'state')
if state == 'queued' then fail(id, 'cancelled', 'cancelled') end
if state == 'in_progress' then
  if get(id, 'accepted') then return 'accepted' end
  set(id, 'cancel', 1)
end
return state or ''
"""
)

# ARGV: id. Answers the state it was in, and the round where it was failed and is queued now.
RETRY = Script(
    _SHARED
    + """
local id = ARGV[1]
local state = get(id, 'state')
if state ~= 'failed' then return {state or '', 0} end
redis.call('HDEL', record(id), 'reason', 'error', 'ended_at', 'progress', 'cancel')
set(id, 'attempts', 0)
return {state, queue(id, 0)}
"""
)

# ARGV: ids. Answers their states, '' for those that are not known.
STATES = Script(
    _SHARED
    + """
local answer = {}
for place, id in ipairs(ARGV) do answer[place] = get(id, 'state') or '' end
return answer
"""
)

# Answers id, fence and owner of each running job, and whether its lease is over.
RUNNING = Script(
    _SHARED
    + """
local answer = {}
local running = redis.call('ZRANGE', P .. 'running', 0, -1, 'WITHSCORES')
for place = 1, #running, 2 do
  local id = running[place]
  local over = tonumber(running[place + 1]) < now and '1' or '0'
  answer[#answer + 1] = {id, get(id, 'fence') or '', get(id, 'owner') or '', over}
end
return answer
"""
)

# ARGV: lane, how many, seconds. Answers id and round of the first that were ready for so long.
READY = Script(
    _SHARED
    + """
local lane, count, seconds = unpack(ARGV)
make_due(lane)
local answer = {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'queue:' .. lane, 0, count - 1)) do
  if get(id, 'state') ~= 'queued' then
    redis.call('ZREM', P .. 'queue:' .. lane, id)
  elseif (tonumber(get(id, 'due_at') or '') or 0) + seconds <= now then
    answer[#answer + 1] = {id, get(id, 'round') or '0'}
  end
end
return answer
"""
)

# ARGV: lane. Answers ready jobs, jobs that back off, and for how many seconds the oldest is ready.
STATS = Script(
    _SHARED
    + """
local lane = ARGV[1]
make_due(lane)
local ready = redis.call('ZRANGE', P .. 'queue:' .. lane, 0, 999)
local oldest = now
for _, id in ipairs(ready) do
  oldest = math.min(oldest, tonumber(get(id, 'due_at') or '') or now)
end
return {redis.call('ZCARD', P .. 'queue:' .. lane), redis.call('ZCARD', P .. 'waiting:' .. lane),
  text(now - oldest)}
"""
)

# ARGV: id. Puts it where its record says that it belongs, after the lists were lost; a job that
# runs is taken back unless its worker says soon that it lives.
PLACE = Script(
    _SHARED
    + """
local id = ARGV[1]
local state, lane = get(id, 'state'), get(id, 'lane')
if not state or not lane then return 0 end
redis.call('ZADD', P .. 'state:' .. state, get(id, 'updated_at') or text(now), id)
if state == 'queued' then redis.call('ZADD', P .. 'queue:' .. lane, score_of(id), id) end
if state == 'in_progress' then redis.call('ZADD', P .. 'running', 'NX', text(now + 60), id) end
return 1
"""
)
