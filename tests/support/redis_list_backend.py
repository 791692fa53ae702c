"""The source that docs/add-a-backend.md builds, as a package that somebody installed."""

import json
import re
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from tests.support.source_backend import Seen

from cefmp4.ports.sources import JobSource

PAGE = Path(__file__).parents[2] / "docs/add-a-backend.md"
_FENCED = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def install(folder: Path) -> None:
    """As pip would, out of what the page says."""
    blocks = dict(_FENCED.findall(PAGE.read_text()))
    (folder / "redis_list.py").write_text(blocks["python"])
    told = folder / "cefmp4_redis_list-1.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: cefmp4-redis-list\nVersion: 1\n")
    group, entry = re.findall(r'entry-points\."([\w.]+)"\]\n([^\n]+)', blocks["toml"])[0]
    name, module = (part.strip().strip('"') for part in entry.split("="))
    (told / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")


class RedisListBackend:
    def __init__(self, redis: Redis, pollers: list[Any]) -> None:
        self._redis = redis
        self._sources = pollers

    @property
    def pollers(self) -> list[JobSource]:
        return list(self._sources)

    async def put(self, asked: dict[str, Any]) -> str:
        ref = str(await self._redis.incr("last"))
        await self._redis.rpush("jobs", json.dumps({"id": ref, **asked}))
        return ref

    async def put_nonsense(self) -> str:
        await self._redis.rpush("jobs", '{"id": "x", "key": 7}')
        return "x"

    async def seen(self, ref: str) -> Seen:
        text = await self._redis.hget("jobs:ended", ref)
        if text is None:
            return Seen("pending")
        told = json.loads(text)
        state = "done" if told["state"] == "complete" else "failed"
        return Seen(state, told["error"], told.get("attempts", 0), told.get("result"))

    async def put_back(self, ref: str) -> None:
        raise NotImplementedError("what comes again was only delivered twice")

    async def pass_time(self) -> None:
        await self._redis.delete("jobs:since")
