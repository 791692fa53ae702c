"""Thumbnails of copies: made of what passes, and never in the way."""

from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from tests.support.fake_store import FakeObjectStore
from tests.support.hls_http import front_loaded, served
from tests.support.hls_media import NEEDS_FFMPEG, encode, encoder, recording, sink_of

from cefmp4.hls.encode import HlsOptions
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls.result import Tier
from cefmp4.media.source import MediaSource

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]


async def test_a_copy_from_a_url_has_thumbnails_and_is_fetched_once(tmp_path: Path) -> None:
    path, store, requests = front_loaded(tmp_path, seconds=20), FakeObjectStore(), 0

    async def whole(request: web.Request) -> web.StreamResponse:
        nonlocal requests
        requests += 1
        return web.FileResponse(path)

    runner, url = await served(whole)
    try:
        done = await encoder(may_copy=True).encode(MediaSource(url=url), sink_of(store))
    finally:
        await runner.cleanup()
    assert done.tier is Tier.COPY
    assert {done.poster_key, done.thumbnails_key} <= set(store.keys)
    assert requests == 5  # its header, its first packets, twice for its last, and all of it


@pytest.mark.parametrize(
    ("does", "reason"),
    [("exit 1", "ffmpeg ended with 1"), ("exec sleep 60", "they were not decoded in time")],
)
async def test_a_copy_whose_thumbnails_cannot_be_made_is_complete(
    tmp_path: Path, does: str, reason: str
) -> None:
    """Copying and examining go on as ever; only what decodes from its standard input is broken."""
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\ncase "$*" in *pipe:0*) {does};; esac\nexec ffmpeg "$@"\n')
    program.chmod(0o755)
    chooser = EncoderChooser(program=str(program), use_gpu=False)
    using = HlsEncoder(
        chooser=chooser,
        options=HlsOptions(program=str(program), images_patience_s=1.0),
    )
    with capture_logs() as logs:
        encoded = await encode(recording(tmp_path, seconds=9), using=using)
    assert encoded.result.tier is Tier.COPY
    assert encoded.result.tracks[0].frames == 270
    assert (encoded.result.poster_key, encoded.result.thumbnails_key) == ("", "")
    assert [line["reason"] for line in logs if line["event"] == "no thumbnails"] == [reason]
