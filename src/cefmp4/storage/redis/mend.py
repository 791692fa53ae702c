"""Mends Redis: where a key of ours holds something else than we wrote, that is thrown away, told
once and counted. What is lost by that is found again as after a Redis that was emptied."""

from collections.abc import AsyncIterator

import structlog

from cefmp4 import metrics
from cefmp4.storage.redis.link import RedisLink
from cefmp4.storage.redis.records import to_bytes, to_text
from cefmp4.storage.redis.scripts import DROP

log = structlog.get_logger()

# By how a key begins.
KINDS = {
    "cefmp4:unreadable": "hash",
    "cefmp4:displaced": "set",
    "cefmp4:instances": "zset",
    "cefmp4:folders": "set",
    "cefmp4:streams": "hash",
    "cefmp4:lease:": "string",
    "cefmp4:parts:": "hash",
    "cefmp4:epoch": "string",
    "cefmp4:fence": "counter",
    "cefmp4:memo:": "string",
    "cefmp4:paths": "hash",
    "cefmp4:keys": "hash",
}
_ALL_OF_THEM = ("cefmp4:streams", "cefmp4:paths", "cefmp4:folders")


async def mend(link: RedisLink) -> None:
    wrong = [key async for key in _keys(link, "cefmp4:*") if await _begins_anew(link, key)]
    if any(key.startswith(_ALL_OF_THEM) for key in wrong):
        async for key in _keys(link, "cefmp4:epoch*"):
            await link.call("DEL", to_bytes(key))  # then all is found again by its objects


async def _begins_anew(link: RedisLink, key: str) -> bool:
    """Whether it held something else than it should, and is gone now."""
    kind = next((kind for start, kind in KINDS.items() if key.startswith(start)), "")
    is_dropped = bool(kind) and bool(await link.run(DROP, words=[to_bytes(key), kind]))
    if is_dropped:
        metrics.unreadable_records.labels("index").inc()
        log.warning("a key in Redis is begun anew", key=key, reason="it was something else")
    return is_dropped


async def _keys(link: RedisLink, pattern: str) -> AsyncIterator[str]:
    async for keys in link.pages("SCAN", match=pattern):
        for key in keys:
            yield to_text(key)
