"""What is done where Redis holds something else than the ledger wrote: a list that is none is begun
anew from the records, and what is no id of ours is left out. Each is told once, and counted."""

import re

from cefmp4.jobs import presence, scripts
from cefmp4.model.job import JobKind, JobState, Lane
from cefmp4.storage.redis.link import RedisLink
from cefmp4.storage.redis.mend import begin_anew

RECORDS = "cefmp4:job:record:"
LISTS = {
    **{f"cefmp4:job:{name}:{lane}": "zset" for name in ("queue", "waiting") for lane in Lane},
    **{f"cefmp4:job:state:{state}": "zset" for state in JobState},
    **{presence.key_of(kind): "zset" for kind in JobKind},
    "cefmp4:job:running": "zset",
    "cefmp4:job:litter": "set",
    "cefmp4:job:fence": "counter",
}
_ID = re.compile(rb"[\w.:@=+-]{1,300}")


def read_id(raw: bytes) -> str | None:
    """None for what no job is called."""
    return raw.decode("ascii") if _ID.fullmatch(raw) else None


def read_count(raw: object) -> int:
    """0 for what is no number."""
    try:
        return int(raw)  # type: ignore[call-overload,no-any-return]  # whatever Redis answers
    except (TypeError, ValueError):
        return 0


async def mend_lists(link: RedisLink) -> None:
    event = "a list of jobs is begun anew"
    if any([await begin_anew(link, name, kind, event) for name, kind in LISTS.items()]):
        await _place_all(link)


async def _place_all(link: RedisLink) -> None:
    async for keys in link.pages("SCAN", match=f"{RECORDS}*"):
        for key in keys:
            job_id = read_id(key.removeprefix(RECORDS.encode()))
            if job_id:
                await link.run(scripts.PLACE, words=[job_id])
