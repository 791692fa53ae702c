"""The steps that must be atomic in Redis, each one Lua script. Records are read with cjson only for
their strings: its numbers are doubles, and a CRC does not fit into one."""

import hashlib

_SHARED = """
local function record_of(id)
  local text = redis.call('HGET', 'cefmp4:streams', id)
  if not text then return nil end
  local ok, record = pcall(cjson.decode, text)
  if ok and type(record) == 'table' then return record end
  return nil
end
local function paths_key(folder)
  if folder == '' then return 'cefmp4:paths' end
  return 'cefmp4:paths:' .. folder
end
local function text_of(record, name)
  local text = record and record[name]
  return type(text) == 'string' and text or nil
end
local function place_of(id)
  local record = record_of(id)
  local path = text_of(record, 'relpath')
  if not path then return nil end
  return paths_key(text_of(record, 'folder') or ''), path
end
local function let_key_go(key, id)
  if key ~= '' and redis.call('HGET', 'cefmp4:keys', key) == id then
    redis.call('HDEL', 'cefmp4:keys', key)
  end
end
local function hold_key(key, id)
  if key == '' then return true end
  redis.call('HSETNX', 'cefmp4:keys', key, id)
  return redis.call('HGET', 'cefmp4:keys', key) == id
end
local function is_latest(id)
  local paths, path = place_of(id)
  return paths and redis.call('HGET', paths, path) == id
end
local function let_path_go(paths, path, id)
  if paths and redis.call('HGET', paths, path) == id then
    redis.call('HDEL', paths, path)
  end
end
local FINAL = {described = true, handed_over = true, failed = true, dropped = true}
local function is_unfinished(id)
  local record = record_of(id)
  return record and not FINAL[record.state]
end
local function is_displaced(id)
  local was = redis.call('SISMEMBER', 'cefmp4:displaced', id) == 1
  return was and is_unfinished(id) and not is_latest(id)
end
local function lead_to(id, folder, path)
  if folder ~= '' then redis.call('SADD', 'cefmp4:folders', folder) end
  local held = redis.call('HGET', paths_key(folder), path)
  if held and held ~= id and is_unfinished(held) then
    redis.call('SADD', 'cefmp4:displaced', held)
  end
  redis.call('HSET', paths_key(folder), path, id)
end
local function erase(id)
  redis.call('HDEL', 'cefmp4:streams', id)
  redis.call('DEL', 'cefmp4:parts:' .. id)
end
local function lease_of(id)
  return redis.call('GET', 'cefmp4:lease:' .. id)
end
"""


class Script:
    """`steps` may call the functions above."""

    def __init__(self, steps: str) -> None:
        self.text = _SHARED + steps
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# ARGV: id, owner, folder, path, previous id, lease ms, record, lease value of a dead holder, object
# key or ''. The key is the stream's where no other has it: SAVE tells.
# Answers the fence; or 0 and the lease that stands in the way, '' where no lease does.
# A fence starts at the clock, so that it grows even across FLUSHALL.
# Of the generations before, only one is kept: its parts can be copied into the new object.
# A stream whose path was taken by another one can still be brought to its end.
CLAIM = Script("""
local id, owner, folder, path, previous, ms, record, dead, key = unpack(ARGV)
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
local is_pathless = is_displaced(id)
local held = redis.call('HGET', paths_key(folder), path)
if held and held ~= id and not is_pathless then
  if held ~= previous and redis.call('HEXISTS', 'cefmp4:streams', held) == 1 then
    return {'0', ''}
  end
  local lease = lease_of(held)
  if lease and lease ~= dead and split(lease) ~= owner then return {'0', lease} end
  local grandparent = text_of(record_of(held), 'previous_id')
  if grandparent and not lease_of(grandparent) and not is_latest(grandparent)
    and not is_displaced(grandparent) then
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
if not is_pathless then lead_to(id, folder, path) end
redis.call('HSETNX', 'cefmp4:streams', id, record)
hold_key(key, id)
return {fence}
""")

# ARGV: id, record, object key or ''. Answers 0 where the record is another now, or is worked on.
SET_ASIDE = Script("""
local id, record, key = unpack(ARGV)
if redis.call('HGET', 'cefmp4:streams', id) ~= record or lease_of(id) then return 0 end
redis.call('HSET', 'cefmp4:unreadable', id, record)
erase(id)
let_key_go(key, id)
return 1
""")

# Answers the records of the unfinished streams that no path leads to, and forgets which of them
# came to their end.
DISPLACED = Script("""
local records = {}
for _, id in ipairs(redis.call('SMEMBERS', 'cefmp4:displaced')) do
  if is_displaced(id) then
    records[#records + 1] = redis.call('HGET', 'cefmp4:streams', id)
  else
    redis.call('SREM', 'cefmp4:displaced', id)
  end
end
return records
""")

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

# ARGV: id, lease value, record, folder, path, object key or '', count of numbers to drop, those,
# then number and value of each part. Answers 0 where the lease is no longer ours, 2 where the key
# is another stream's. Only a rename may take a path from another stream: a stream whose file was
# replaced must not take its path back.
SAVE = Script("""
local id, lease, record, folder, path, key, drops = unpack(ARGV, 1, 7)
if lease_of(id) ~= lease then return 0 end
local paths, former = place_of(id)
local is_moved = paths and (paths ~= paths_key(folder) or former ~= path)
if is_moved then let_path_go(paths, former, id) end
if is_moved or not redis.call('HGET', paths_key(folder), path) then lead_to(id, folder, path) end
local former_key = text_of(record_of(id), 'key') or ''
if former_key ~= key then let_key_go(former_key, id) end
redis.call('HSET', 'cefmp4:streams', id, record)
local parts = 'cefmp4:parts:' .. id
local first_part = 8 + tonumber(drops)
for place = 8, first_part - 1 do
  redis.call('HDEL', parts, ARGV[place])
end
for place = first_part, #ARGV, 2 do
  redis.call('HSET', parts, ARGV[place], ARGV[place + 1])
end
return hold_key(key, id) and 1 or 2
""")

# ARGV: id, folder, path, lease value of a dead holder. Answers the lease that stands in the way.
# The path goes back to the generation before; one that was at another path is forgotten too,
# because nothing would lead to it. Their keys are free again, as far as objects leave them.
FORGET = Script("""
local id, folder, path, dead = unpack(ARGV)
local lease = lease_of(id)
if lease and lease ~= dead then return lease end
redis.call('DEL', 'cefmp4:lease:' .. id)
let_path_go(paths_key(folder), path, id)
while id do
  local paths, recorded = place_of(id)
  local previous = text_of(record_of(id), 'previous_id')
  let_path_go(paths, recorded, id)
  let_key_go(text_of(record_of(id), 'key') or '', id)
  erase(id)
  id = nil
  if previous and not lease_of(previous) and not is_latest(previous) then
    local former_paths, former = place_of(previous)
    if paths and paths == former_paths and recorded == former then
      redis.call('HSETNX', paths, recorded, previous)
    else
      id = previous
    end
  end
end
return ''
""")

# ARGV: the folder, then id, path, former folder and new record of each stream. A stream that
# somebody works on, or that is not the latest of its path, stays. Answers the ids that went over.
ADOPT = Script("""
local folder, taken = ARGV[1], {}
for place = 2, #ARGV, 4 do
  local id, path, former, record = unpack(ARGV, place, place + 3)
  local paths = paths_key(former)
  local is_free = not lease_of(id) and redis.call('HGET', paths, path) == id
  if is_free and not redis.call('HGET', paths_key(folder), path) then
    redis.call('HDEL', paths, path)
    lead_to(id, folder, path)
    redis.call('HSET', 'cefmp4:streams', id, record)
    if former ~= '' and redis.call('EXISTS', paths) == 0 then
      redis.call('SREM', 'cefmp4:folders', former)
    end
    taken[#taken + 1] = id
  end
end
return taken
""")

# ARGV: instance, views, ms they are good for, note.
PUBLISH_VIEWS = Script("""
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', 'cefmp4:instances', '-inf', ms)
redis.call('ZADD', 'cefmp4:instances', ms + ARGV[3], ARGV[1])
redis.call('SET', 'cefmp4:live:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
if ARGV[4] == '' then
  redis.call('DEL', 'cefmp4:note:' .. ARGV[1])
else
  redis.call('SET', 'cefmp4:note:' .. ARGV[1], ARGV[4], 'PX', ARGV[3])
end
return 1
""")

# ARGV: key, type, which may be `counter`. Answers whether it was of another one, and is gone now.
DROP = Script("""
local key, wanted = unpack(ARGV)
local found = redis.call('TYPE', key).ok
local is_right = found == 'none' or found == wanted
if wanted == 'counter' and found == 'string' then
  is_right = redis.call('STRLEN', key) < 16 and string.match(redis.call('GET', key), '^%d+$')
end
return is_right and 0 or redis.call('DEL', key)
""")
