"""The thumbnails of a copy, and what they are made of: a few of its key frames, taken as they pass,
handed to a decoder as an MP4 of their own. No byte is read twice, and no other picture is decoded.
"""

import asyncio
import struct
from dataclasses import replace

import structlog

from cefmp4.errors import PermanentError, TransientError
from cefmp4.hls import ffmpeg
from cefmp4.hls.encode import Encode, ImagePump
from cefmp4.hls.examined import ExaminedVideo
from cefmp4.hls.failures import last_words
from cefmp4.hls.filters import stills_graph
from cefmp4.hls.fragments import Fragment
from cefmp4.hls.thumbnails import Images, SpritePlan
from cefmp4.media.ffmpeg_run import FfmpegRun, Pace

log = structlog.get_logger()

_WAITING = 4  # key frames; a large one has a megabyte or more
_TRACK = 1  # ffmpeg numbers the only track of a file so
_SYNC = 0x02000000
_BASE_IS_MOOF = 0x020000
_OFFSET_DURATION_SIZE_FLAGS = 0x1 | 0x100 | 0x200 | 0x400


class Stills:
    """Between the copy, which calls `take` and at last `end`, and the decoder, which is fed by
    `feed`. A decoder that takes nothing holds the copy up for `patience_s`, one that ended until
    `abandon` is called."""

    def __init__(self, plan: SpritePlan, *, patience_s: float = 20.0) -> None:
        self.plan = plan
        self._patience_s = patience_s
        self._queue = asyncio.Queue[bytes](_WAITING)
        self._taken = 0
        self._latest: tuple[bytes, int] = b"", 0  # a key frame and the timescale
        self._is_abandoned = False

    def __repr__(self) -> str:
        return f"<Stills {self._taken} of {self.plan.count} abandoned={self._is_abandoned}>"

    async def take(self, fragment: Fragment) -> None:
        """A thumbnail shows what a player that seeks there begins with: one key frame may stand
        for several, and most for none."""
        if not self._is_due(fragment.end_s):
            return
        if self._taken == 0:
            await self._put(fragment.init.data)
        self._latest = bytes(fragment.first_sample), fragment.init.header.timescale
        while self._is_due(fragment.end_s):
            await self._put_latest()

    async def end(self) -> None:
        """A recording that is a little shorter than its header says shows its last picture once
        more; a thumbnail that is missing would be black."""
        while self._latest[0] and self._taken < self.plan.count:
            await self._put_latest()
        await self._put(b"")

    async def feed(self, decoder: asyncio.StreamWriter) -> None:
        try:
            while data := await self._queue.get():
                decoder.write(data)
                async with asyncio.timeout(self._patience_s):
                    await decoder.drain()
        except TimeoutError as error:
            raise TransientError(
                f"no thumbnail was decoded for {self._patience_s:.0f} s"
            ) from error
        except ConnectionError:
            pass  # it has all it needs, or it died; its exit code tells
        finally:
            decoder.close()

    def abandon(self) -> None:
        self._is_abandoned = True
        while not self._queue.empty():
            self._queue.get_nowait()

    def _is_due(self, end_s: float) -> bool:
        return self._taken < self.plan.count and self._taken * self.plan.interval_s < end_s

    async def _put_latest(self) -> None:
        sample, timescale = self._latest
        await self._put(_fragment(sample, self._taken, timescale))
        self._taken += 1

    async def _put(self, data: bytes) -> None:
        if not self._is_abandoned:
            await self._queue.put(data)


async def make_images(encode: Encode, examined: ExaminedVideo, stills: Stills) -> Images:
    """Sprite and poster of a copy that goes on meanwhile; none where they fail, because a recording
    without thumbnails is worth more than none. How long it takes is for the copy to say: without
    pictures to decode there is no progress to watch."""
    length_s, limits = examined.duration_s, encode.options.limits
    run = FfmpegRun(
        limits=replace(limits, stall_s=limits.total_s(length_s)),
        pace=Pace(length_s=length_s),
        on_pace=lambda _pace: None,
        feed=stills.feed,
    )
    sprite, poster = ImagePump("sprite"), ImagePump("poster")
    graph = stills_graph(examined.video, stills.plan)
    try:
        await run.run(ffmpeg.reading_stills(encode.options.program, graph), [sprite, poster])
        if run.returncode != 0:
            raise TransientError(last_words(run))
    except (TransientError, PermanentError) as error:
        log.warning("no thumbnails", reason=str(error))
        return Images()
    finally:
        stills.abandon()
    return Images(
        sprite=sprite.data, poster=poster.data, plan=stills.plan, errors=run.stderr.errors
    )


def _fragment(sample: bytes, number: int, timescale: int) -> bytes:
    """One picture, shown in second `number`."""
    header = _full_box(b"mfhd", 0, 0, struct.pack(">I", number + 1))
    track = _full_box(b"tfhd", 0, _BASE_IS_MOOF, struct.pack(">I", _TRACK))
    time = _full_box(b"tfdt", 1, 0, struct.pack(">Q", number * timescale))
    size = 8 + len(header) + 8 + len(track) + len(time) + 12 + 20
    run = struct.pack(">IIIII", 1, size + 8, timescale, len(sample), _SYNC)
    trun = _full_box(b"trun", 0, _OFFSET_DURATION_SIZE_FLAGS, run)
    moof = _box(b"moof", header + _box(b"traf", track + time + trun))
    return moof + _box(b"mdat", sample)


def _full_box(kind: bytes, version: int, flags: int, content: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + content)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content
