"""The steps that must be atomic in Redis, each one Lua script. Records are read with cjson only for
their strings: its numbers are doubles, and a CRC does not fit into one."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    text: str

    @property
    def sha(self) -> str:
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_SHARED = """
local function record_of(id)
  local text = redis.call('HGET', 'cefmp4:streams', id)
  if not text then return nil end
  local ok, record = pcall(cjson.decode, text)
  if ok and type(record) == 'table' then return record end
  return nil
end
local function path_of(id)
  local record = record_of(id)
  if record and type(record.relpath) == 'string' then return record.relpath end
  return nil
end
local function previous_of(id)
  local record = record_of(id)
  if record and type(record.previous_id) == 'string' then return record.previous_id end
  return nil
end
local function is_latest(id)
  local path = path_of(id)
  return path and redis.call('HGET', 'cefmp4:paths', path) == id
end
local function let_path_go(path, id)
  if path and redis.call('HGET', 'cefmp4:paths', path) == id then
    redis.call('HDEL', 'cefmp4:paths', path)
  end
end
local function erase(id)
  redis.call('HDEL', 'cefmp4:streams', id)
  redis.call('DEL', 'cefmp4:parts:' .. id)
end
local function lease_of(id)
  return redis.call('GET', 'cefmp4:lease:' .. id)
end
"""

# ARGV: id, owner, path, previous id, lease ms, record, lease value of a holder that is dead.
# Answers the fence; or 0 and the lease that stands in the way, '' where no lease does.
# A fence starts at the clock, so that it grows even across FLUSHALL.
# Of the generations before, only one is kept: its parts can be copied into the new object.
CLAIM = Script(
    _SHARED
    + """
local id, owner, path, previous, ms, record, dead = unpack(ARGV)
local function split(lease)
  return string.match(lease, '^(.*)|(%d+)$')
end
local mine = lease_of(id)
if mine then
  local holder, fence = split(mine)
  if holder == owner then
    redis.call('PEXPIRE', 'cefmp4:lease:' .. id, ms)
    return {fence}
  end
  if mine ~= dead then return {'0', mine} end
end
local held = redis.call('HGET', 'cefmp4:paths', path)
if held and held ~= id then
  if held ~= previous and redis.call('HEXISTS', 'cefmp4:streams', held) == 1 then
    return {'0', ''}
  end
  local lease = lease_of(held)
  if lease and lease ~= dead and split(lease) ~= owner then return {'0', lease} end
  local grandparent = previous_of(held)
  if grandparent and not lease_of(grandparent) and not is_latest(grandparent) then
    erase(grandparent)
  end
end
local fence = redis.call('INCR', 'cefmp4:fence')
if fence < 1000000000000 then
  local now = redis.call('TIME')
  fence = now[1] * 1000 + math.floor(now[2] / 1000)
  redis.call('SET', 'cefmp4:fence', string.format('%.0f', fence))
end
fence = string.format('%.0f', fence)
redis.call('SET', 'cefmp4:lease:' .. id, owner .. '|' .. fence, 'PX', ms)
redis.call('HSET', 'cefmp4:paths', path, id)
redis.call('HSETNX', 'cefmp4:streams', id, record)
return {fence}
"""
)

# KEYS: leases. ARGV: lease ms, then what each lease must still say. Answers the places of the lost.
RENEW = Script("""
local lost = {}
for place, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[place + 1] then
    redis.call('PEXPIRE', key, ARGV[1])
  else
    lost[#lost + 1] = place
  end
end
return lost
""")

# KEYS: lease. ARGV: what it must still say.
RELEASE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")

# ARGV: id, lease value, record, path, count of numbers to drop, those, then number and value of
# each part. Answers 0 where the lease is no longer ours. Only a rename may take a path from another
# stream: a stream whose file was replaced must not take its path back.
SAVE = Script(
    _SHARED
    + """
local id, lease, record, path, drops = unpack(ARGV, 1, 5)
if lease_of(id) ~= lease then return 0 end
local former = path_of(id)
if former and former ~= path then
  let_path_go(former, id)
  redis.call('HSET', 'cefmp4:paths', path, id)
else
  redis.call('HSETNX', 'cefmp4:paths', path, id)
end
redis.call('HSET', 'cefmp4:streams', id, record)
local parts = 'cefmp4:parts:' .. id
local first_part = 6 + tonumber(drops)
for place = 6, first_part - 1 do
  redis.call('HDEL', parts, ARGV[place])
end
for place = first_part, #ARGV, 2 do
  redis.call('HSET', parts, ARGV[place], ARGV[place + 1])
end
return 1
"""
)

# ARGV: id, path, lease value of a holder that is dead. Answers the lease that stands in the way.
# The path goes back to the generation before; one that was at another path is forgotten too,
# because nothing would lead to it.
FORGET = Script(
    _SHARED
    + """
local id, path, dead = unpack(ARGV)
local lease = lease_of(id)
if lease and lease ~= dead then return lease end
redis.call('DEL', 'cefmp4:lease:' .. id)
let_path_go(path, id)
while id do
  local recorded, previous = path_of(id), previous_of(id)
  let_path_go(recorded, id)
  erase(id)
  id = nil
  if previous and not lease_of(previous) and not is_latest(previous) then
    if recorded and path_of(previous) == recorded then
      redis.call('HSETNX', 'cefmp4:paths', recorded, previous)
    else
      id = previous
    end
  end
end
return ''
"""
)

# ARGV: instance, views, ms they are good for.
PUBLISH_VIEWS = Script("""
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', 'cefmp4:instances', '-inf', ms)
redis.call('ZADD', 'cefmp4:instances', ms + ARGV[3], ARGV[1])
redis.call('SET', 'cefmp4:live:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
return 1
""")
