"""What goes wrong leaves nothing behind, and is told apart: the recording's fault, or the day's."""

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from awscrt.checksums import crc64nvme
from tests.support.fake_store import FakeObjectStore
from tests.support.hls_http import front_loaded, served
from tests.support.hls_media import (
    H264,
    NEEDS_FFMPEG,
    PICTURE,
    encode,
    encoder,
    ffmpeg,
    opened,
    recording,
    sink_of,
    until,
)

from cefmp4.errors import PermanentError, ServerUnreachableError, TransientError
from cefmp4.hls.result import NeedsEncoderError, Tier
from cefmp4.media.ffmpeg_run import RunLimits
from cefmp4.media.source import MediaSource
from cefmp4.model.names import META_PART_BASE, META_STREAM_ID
from cefmp4.outputs.leftovers import remove_attempt
from cefmp4.outputs.publish import publish
from cefmp4.retry import no_waiting

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]


def cut(source: Path, share: float) -> Path:
    data = source.read_bytes()
    target = source.with_name("cut.mp4")
    target.write_bytes(data[: int(len(data) * share)])
    return target


async def refused(path: Path, *, may_copy: bool = False) -> str:
    store = FakeObjectStore()
    async with opened(path) as source:
        with pytest.raises(PermanentError) as caught:
            await encoder(may_copy=may_copy).encode(source, sink_of(store))
    assert store.keys == []
    return str(caught.value)


@pytest.mark.parametrize("may_copy", [True, False])
async def test_a_truncated_recording_is_never_complete(tmp_path: Path, may_copy: bool) -> None:
    path = cut(front_loaded(tmp_path), 0.4)
    assert "not complete" in await refused(path, may_copy=may_copy)


async def test_a_recording_that_lacks_only_its_last_second(tmp_path: Path) -> None:
    path = cut(front_loaded(tmp_path), 0.85)
    assert "not complete" in await refused(path, may_copy=True)


async def test_without_its_index(tmp_path: Path) -> None:
    path = cut(recording(tmp_path), 0.5)
    assert "cannot be read" in await refused(path)


async def test_garbage_and_nothing(tmp_path: Path) -> None:
    path = tmp_path / "garbage.mp4"
    path.write_bytes(random.Random(1).randbytes(50_000))
    assert "cannot be read" in await refused(path)
    path.write_bytes(b"")
    assert "cannot be read" in await refused(path)


async def test_a_playlist_in_disguise_reads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "list.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{tmp_path}/clip.mp4\n")
    assert "not a recording" in await refused(path)


async def test_flipped_bits_are_concealed_and_counted(tmp_path: Path) -> None:
    path = front_loaded(tmp_path, seconds=4)
    data, dice = bytearray(path.read_bytes()), random.Random(3)
    media = data.find(b"mdat") + 4000
    for _ in range(80):
        data[dice.randrange(media, len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)
    encoded = await encode(path)
    assert encoded.result.duration_s == pytest.approx(4.0, abs=0.2)
    assert encoded.result.warnings > 0


async def running(store: FakeObjectStore) -> None:
    """Until ffmpeg has delivered something."""
    await until(lambda: bool(store.keys))


def ffmpeg_children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.name() == "ffmpeg" and child.status() != psutil.STATUS_ZOMBIE
    ]


async def interrupted(
    path: Path, interrupt: Callable[[asyncio.Task[object]], object]
) -> BaseException:
    """The error of an encode that is interrupted in the middle."""
    store = FakeObjectStore()
    async with opened(path) as source:
        work = encoder(has_thumbnails=False).encode(source, sink_of(store))
        task: asyncio.Task[object] = asyncio.create_task(work)
        await running(store)
        interrupt(task)
        (error,) = await asyncio.gather(task, return_exceptions=True)
    assert store.keys == []
    assert ffmpeg_children() == []
    assert isinstance(error, BaseException)
    return error


async def test_cancelling(tmp_path: Path) -> None:
    path = recording(tmp_path, seconds=40)
    error = await interrupted(path, lambda task: task.cancel())
    assert isinstance(error, asyncio.CancelledError)


async def test_killing_ffmpeg(tmp_path: Path) -> None:
    path = recording(tmp_path, seconds=40)
    error = await interrupted(path, lambda _task: ffmpeg_children()[0].kill())
    assert isinstance(error, TransientError)
    assert "killed by signal 9" in str(error)


async def test_an_ffmpeg_that_crashes_will_crash_again(tmp_path: Path) -> None:
    path = recording(tmp_path, seconds=40)
    crash = signal.SIGSEGV
    error = await interrupted(path, lambda _task: ffmpeg_children()[0].send_signal(crash))
    assert isinstance(error, PermanentError)
    assert "ffmpeg crashed on it (signal 11)" in str(error)


async def failing(path: Path, **limits: float) -> BaseException:
    store = FakeObjectStore()
    async with opened(path) as source:
        with pytest.raises(TransientError) as caught:
            await encoder(limits=RunLimits(**limits)).encode(  # type: ignore[arg-type]  # the limits of one test
                source, sink_of(store)
            )
    assert store.keys == []
    assert ffmpeg_children() == []
    return caught.value


async def test_the_time_limit(tmp_path: Path) -> None:
    path = recording(tmp_path, seconds=40)
    assert "needed more than" in str(await failing(path, grace_s=1.0, slowest_speed=1000.0))


async def test_a_store_that_hangs_is_noticed(tmp_path: Path) -> None:
    path, store = recording(tmp_path), FakeObjectStore()
    async with opened(path) as source:
        with store.pause("put_object"), pytest.raises(TransientError, match="no further"):
            await encoder(limits=RunLimits(stall_s=3.0)).encode(source, sink_of(store))
    assert store.keys == []


@pytest.mark.parametrize("at", [1, 2, 5, 8])
async def test_a_store_that_fails(tmp_path: Path, at: int) -> None:
    """The nth PUT is refused: of an init, a segment, a playlist."""
    path, store = recording(tmp_path, seconds=2), FakeObjectStore()
    failed = refusing(store, at)
    async with opened(path) as source:
        with pytest.raises(TransientError, match="the store is sick"):
            await encoder().encode(source, sink_of(failed))
    assert store.keys == []


async def test_a_store_that_is_away_for_a_while_costs_no_encode(tmp_path: Path) -> None:
    path, store = recording(tmp_path, seconds=2), FakeObjectStore()
    store.fail("put_object", ServerUnreachableError("the store is away"), times=9)
    with no_waiting():
        async with opened(path) as source:
            await encoder().encode(source, sink_of(store))
    assert any(key.endswith("/master.m3u8") for key in store.keys)


def refusing(store: FakeObjectStore, at: int) -> FakeObjectStore:
    put, count = store.put_object, 0

    async def counted(*args: object, **options: object) -> str:
        nonlocal count
        count += 1
        if count >= at:
            raise TransientError("the store is sick")
        return await put(*args, **options)  # type: ignore[arg-type]  # passed on as they came

    store.put_object = counted  # type: ignore[method-assign]  # the nth call of any kind
    return store


async def test_nothing_is_visible_before_it_is_published(tmp_path: Path) -> None:
    path, store = recording(tmp_path, seconds=2), FakeObjectStore()
    async with opened(path) as source:
        await encoder().encode(source, sink_of(store, "1"))
    assert not any(key.count("/") == 2 for key in store.keys)
    await publish(store, stream_id="s1", attempt="1")
    assert [key for key in store.keys if key.count("/") == 2] == ["hls/s1/master.m3u8"]


async def test_a_new_attempt_replaces_an_old_one_whole(tmp_path: Path) -> None:
    path, store = recording(tmp_path, seconds=2), FakeObjectStore()
    async with opened(path) as source:
        await encoder().encode(source, sink_of(store, "1"))
        await publish(store, stream_id="s1", attempt="1")
        # An attempt that was killed leaves something.
        await sink_of(store, "2").put("hevc-180p.2/seg_00000.m4s", b"half")
        await encoder().encode(source, sink_of(store, "3"))
    first = store.data("hls/s1/master.m3u8")
    await publish(store, stream_id="s1", attempt="3")
    second, keys = store.data("hls/s1/master.m3u8"), store.keys
    assert (b"hevc-180p.1/" in first, b"hevc-180p.3/" in second) == (True, True)
    assert {key.split("/")[2] for key in keys} == {
        "attempt.3",
        "audio-0.3",
        "h264-180p.3",
        "hevc-180p.3",
        "images.3",
        "master.m3u8",
    }
    await publish(store, stream_id="s1", attempt="3")
    assert (store.keys, store.data("hls/s1/master.m3u8")) == (keys, second)


async def test_an_attempt_is_discarded_without_touching_another() -> None:
    store = FakeObjectStore()
    for attempt in ("1", "12", "2"):
        await sink_of(store, attempt).put(f"hevc-180p.{attempt}/seg_00000.m4s", b"x")
    assert await remove_attempt(store, stream_id="s1", attempt="1") == 1
    assert store.keys == ["hls/s1/hevc-180p.12/seg_00000.m4s", "hls/s1/hevc-180p.2/seg_00000.m4s"]


async def test_what_does_not_say_that_it_is_ours_is_never_removed() -> None:
    """A folder of a user's may be called like one of an attempt."""
    store = FakeObjectStore()
    recording_s = {META_STREAM_ID: "s1", META_PART_BASE: "5242880"}
    theirs = {"theirs.1/a.mp4": recording_s, "theirs.1/b.mp4": {}, "theirs.2/c.mp4": recording_s}
    for name, metadata in theirs.items():
        await store.put_object(
            f"hls/s1/{name}", b"x", content_type="", metadata=metadata, crc64=crc64nvme(b"x")
        )
    await sink_of(store, "1").put("hevc-180p.1/seg_00000.m4s", b"x")
    await sink_of(store, "2").put("attempt.2/master.m3u8", b"x")
    assert await remove_attempt(store, stream_id="s1", attempt="1") == 1
    await publish(store, stream_id="s1", attempt="2")
    assert {f"hls/s1/{name}" for name in theirs} <= set(store.keys)


async def test_what_could_not_be_removed_is_told_and_removed_the_next_time() -> None:
    store = FakeObjectStore()
    for number in range(3):
        await sink_of(store).put(f"hevc-180p.1/seg_0000{number}.m4s", b"x")
    store.fail("delete", ServerUnreachableError("the store is away"))
    with pytest.raises(TransientError, match="1 objects of attempt 1 are left"):
        await remove_attempt(store, stream_id="s1", attempt="1")
    assert await remove_attempt(store, stream_id="s1", attempt="1") == 1
    assert store.keys == []


async def test_an_attempt_that_is_not_there_cannot_be_published() -> None:
    store = FakeObjectStore()
    with pytest.raises(PermanentError, match="left no master"):
        await publish(store, stream_id="s1", attempt="7")


async def test_what_may_not_encode_says_that_it_must(tmp_path: Path) -> None:
    path, store = recording(tmp_path, "-g", "240", "-sc_threshold", "0"), FakeObjectStore()
    turned = tmp_path / "turned.mp4"
    ffmpeg("-i", path, "-c", "copy", "-metadata:s:v", "rotate=90", turned)
    async with opened(turned) as source:
        with pytest.raises(NeedsEncoderError, match="rotated"):
            await encoder(may_copy=True).encode(source, sink_of(store), allowed=Tier.COPY)
    assert store.keys == []


async def test_from_a_url_with_a_connection_that_drops(tmp_path: Path) -> None:
    """ffmpeg goes on where it was."""
    path, store, drops = front_loaded(tmp_path), FakeObjectStore(), 0
    data = path.read_bytes()

    async def dropping(request: web.Request) -> web.StreamResponse:
        nonlocal drops
        start = request.http_range.start or 0
        body = data[start:]
        head = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        reply = web.StreamResponse(status=206, headers={**head, "Accept-Ranges": "bytes"})
        reply.content_length = len(body)
        await reply.prepare(request)
        if drops < 4 and len(body) > len(data) // 2:
            drops += 1
            await reply.write(body[: len(data) // 3])
            if request.transport:
                request.transport.abort()
            return reply
        await reply.write(body)
        return reply

    runner, url = await served(dropping)
    try:
        done = await encoder().encode(MediaSource(url=url), sink_of(store))
    finally:
        await runner.cleanup()
    assert drops
    assert done.duration_s == pytest.approx(8.0, abs=0.05)
    assert b"hidden" not in store.data("hls/s1/attempt.1/result.json")


async def test_a_server_that_is_gone_is_not_the_recordings_fault() -> None:
    store = FakeObjectStore()
    source = MediaSource(url="http://127.0.0.1:9/clip.mp4?signature=hidden")
    with pytest.raises(TransientError) as caught:
        await encoder().encode(source, sink_of(store))
    assert "hidden" not in str(caught.value)


async def test_raw_video_without_a_duration(tmp_path: Path) -> None:
    """As a recorder leaves it that was killed: nothing tells how long it is."""
    path = tmp_path / "live.mkv"
    live = ffmpeg(*PICTURE, "-t", "4", "-g", "30", *H264, "-f", "matroska", "-live", "1", "pipe:1")
    path.write_bytes(live)
    encoded = await encode(path)
    assert encoded.result.duration_s == pytest.approx(4.0, abs=0.1)
