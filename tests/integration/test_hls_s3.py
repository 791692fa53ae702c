"""HLS into a real S3 server, and out of it again."""

from pathlib import Path

import pytest
from tests.support.hls_media import NEEDS_FFMPEG, encoder, opened, recording
from tests.support.servers import SwiftServer

from cefmp4.outputs.leftovers import remove_attempt
from cefmp4.outputs.names import hls_prefix
from cefmp4.outputs.publish import publish
from cefmp4.outputs.sink import SegmentSink
from cefmp4.storage.s3.store import S3Store, open_s3_store

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="session"),
    NEEDS_FFMPEG,
]


async def encoded(store: S3Store, path: Path, attempt: str) -> None:
    sink = SegmentSink(store, stream_id="s1", bucket="b", attempt=attempt)
    async with opened(path) as source:
        await encoder(may_copy=True).encode(source, sink)


async def folders(store: S3Store) -> set[str]:
    prefix = hls_prefix("s1")
    return {
        stored.key.removeprefix(prefix).split("/")[0] async for stored in store.list_objects(prefix)
    }


async def test_published_replaced_and_discarded(s3_server: SwiftServer, tmp_path: Path) -> None:
    path = recording(tmp_path, "-bf", "2", "-pix_fmt", "yuv420p", seconds=9)
    async with open_s3_store(s3_server.config(await s3_server.new_bucket())) as store:
        await encoded(store, path, "1")
        await publish(store, stream_id="s1", attempt="1")
        master = await store.head("hls/s1/master.m3u8")
        assert master is not None
        assert master.content_type == "application/vnd.apple.mpegurl"
        await encoded(store, path, "2")
        await encoded(store, path, "3")
        assert await remove_attempt(store, stream_id="s1", attempt="2") > 5
        await publish(store, stream_id="s1", attempt="3")
        assert await folders(store) == {
            "attempt.3",
            "audio-0.3",
            "h264-180p.3",
            "images.3",
            "master.m3u8",
        }
        assert b"h264-180p.3/index.m3u8" in await store.read("hls/s1/master.m3u8")
