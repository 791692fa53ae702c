"""Whoever may write to Redis runs no code: nothing of ours unpickles anything, wherever it lies."""

import ast
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from tests.support.checkpoint_records import claimed, part, stream

import cefmp4
from cefmp4.storage.redis.checkpoints import open_checkpoints

_LOADERS = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "copyreg", "jsonpickle"}


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.open, (self.path, os.O_CREAT | os.O_WRONLY)


@pytest.mark.integration
async def test_a_pickle_in_redis_runs_nothing(redis_url: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bomb = pickle.dumps((Touch(mark),))
    async with (
        open_checkpoints(redis_url, lease_seconds=5) as store,
        Redis.from_url(redis_url) as redis,
    ):
        known = stream("s1")
        lease = await claimed(store, known)
        await store.save(known, lease, parts=[part(1)])
        for key in await redis.keys("cefmp4:*"):
            if await redis.type(key) == b"hash":
                await redis.hset(key, mapping=dict.fromkeys(await redis.hkeys(key), bomb))
                await redis.hset(key, "planted", bomb)
        for lane in ("hls-look", "hls-encode", "analysis"):  # where workers once looked
            message: dict[Any, Any] = {
                "key": "evil",
                "function": "work",
                "args": bomb,
                "kwargs": bomb,
            }
            await redis.xadd(f"cefmp4-{lane}:stream", message)
            await redis.xadd(f"cefmp4-{lane}:strikes", {"direction": "strike", "value": bomb})
        assert await store.load_streams() == []
        assert await store.load_stream_at("", known.relpath) is None
        new = stream("s2")
        assert await store.save(new, await claimed(store, new))
    assert not mark.exists()


def test_nothing_of_ours_can_load_objects() -> None:
    found = {
        f"{path.name}: {module}"
        for path in Path(cefmp4.__file__).parent.rglob("*.py")
        for module in _imported(ast.parse(path.read_text()))
        if module.split(".")[0] in _LOADERS
    }
    assert found == set()


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
