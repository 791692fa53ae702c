"""Which workers live, as each of them says of itself, in Redis' own time."""

from cefmp4.model.job import JobKind
from cefmp4.storage.redis.scripts import Script

PRESENCE_MS = 15_000  # longer than a worker is ever silent, and as soon as its death matters

_SHARED = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local key = 'cefmp4:job:workers:' .. ARGV[1]
"""

# ARGV: kind, owner, ms.
ANNOUNCE = Script(_SHARED + "return redis.call('ZADD', key, now + tonumber(ARGV[3]), ARGV[2])")

# ARGV: kind. Those that are gone are forgotten.
COUNT = Script(
    _SHARED
    + """
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
return redis.call('ZCARD', key)
"""
)


def key_of(kind: JobKind) -> str:
    return f"cefmp4:job:workers:{kind}"
