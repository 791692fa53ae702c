"""One pipe of ffmpeg on its way into the store: bytes, fragments, segments, rows. When too many
segments wait for the store it stops reading, which stops ffmpeg."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from cefmp4.hls import playlist
from cefmp4.hls.ffmpeg import SEGMENT_SECONDS
from cefmp4.hls.fragments import (
    Fragment,
    FragmentParser,
    Init,
    KeyFrame,
    SegmentCutter,
    key_frames,
)
from cefmp4.hls.result import SegmentRow, StoredTrack
from cefmp4.media.mp4_boxes import BrokenMediaError
from cefmp4.media.pipe import Pipe
from cefmp4.outputs.sink import SegmentSink

SEGMENTS_IN_FLIGHT = 8

FragmentLook = Callable[[Fragment], Awaitable[None]]


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class TrackPump:
    """`options`: what makes ffmpeg write it. `look` sees every fragment before it is used, and may
    refuse it by raising."""

    name: str
    sink: SegmentSink
    options: Sequence[str]
    on_stored: Callable[[], None]
    on_reached: Callable[[float], None] | None = None
    look: FragmentLook | None = None
    encoder: str
    hdr: str | None = None
    language: str = ""
    is_torn: bool = field(default=False, init=False)
    _slots: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(SEGMENTS_IN_FLIGHT), init=False
    )
    _init: Init | None = field(default=None, init=False)
    _cutter: SegmentCutter = field(
        default_factory=lambda: SegmentCutter(SEGMENT_SECONDS), init=False
    )
    _rows: list[SegmentRow] = field(default_factory=list, init=False)
    _key_frames: list[tuple[KeyFrame, ...]] = field(default_factory=list, init=False)
    _frames: int = field(default=0, init=False)

    def __repr__(self) -> str:
        return f"<TrackPump {self.name} segments={len(self._rows)} torn={self.is_torn}>"

    @property
    def folder(self) -> str:
        return self.sink.folder(self.name)

    async def pump(self, pipe: Pipe) -> None:
        """Returns when the pipe has ended and every segment is stored."""
        parser = FragmentParser()
        async with asyncio.TaskGroup() as uploads:
            while count := await pipe.read_into(parser.room):
                if fragment := parser.took(count):
                    await self._add(fragment, uploads)
            try:
                parser.close()
            except BrokenMediaError:
                self.is_torn = True  # ffmpeg died; it is judged by what it said
            if last := self._cutter.close():
                await self._add_segment(last, uploads)

    def stored(self) -> StoredTrack | None:
        """All of it, after `pump`. None where nothing came, or no more than an init segment."""
        if self._init is None or not self._rows:
            return None
        return StoredTrack(
            name=self.name,
            folder=self.folder,
            header=self._init.header,
            rows=tuple(self._rows),
            key_frames=tuple(self._key_frames),
            frames=self._frames,
            encoder=self.encoder,
            hdr=self.hdr,
            language=self.language,
        )

    async def _add(self, fragment: Fragment, uploads: asyncio.TaskGroup) -> None:
        if self._init is None:
            # Not before: a track in which nothing is leaves nothing in the store.
            self._init = fragment.init
            await self._upload(f"{self.folder}/{playlist.INIT}", fragment.init.data, uploads)
        if self.look:
            await self.look(fragment)
        if self.on_reached:
            self.on_reached(fragment.end_s)
        if segment := self._cutter.add(fragment):
            await self._add_segment(segment, uploads)

    async def _add_segment(self, segment: list[Fragment], uploads: asyncio.TaskGroup) -> None:
        number, data = len(self._rows), b"".join(fragment.data for fragment in segment)
        header = segment[0].init.header
        name = f"{self.folder}/{playlist.segment_name(number)}"
        await self._upload(name, data, uploads)
        start, end = segment[0].start / header.timescale, segment[-1].end_s
        frames = sum(len(fragment.samples) for fragment in segment)
        is_video = header.kind == "video"
        row = SegmentRow(
            index=number,
            start=round(start, 6),
            end=round(end, 6),
            bytes=len(data),
            key=self.sink.prefix + name,
            bucket=self.sink.bucket,
            size=f"{header.width}x{header.height}" if is_video else "",
            fps=round(frames / max(end - start, 1e-6), 3) if is_video else None,
            codec=header.codec,
        )
        self._rows.append(row)
        self._key_frames.append(tuple(key_frames(segment)))
        self._frames += frames

    async def _upload(self, name: str, data: bytes, uploads: asyncio.TaskGroup) -> None:
        await self._slots.acquire()
        uploads.create_task(self._store(name, data), name=f"put {name}")

    async def _store(self, name: str, data: bytes) -> None:
        try:
            await self.sink.put(name, data)
        finally:
            self._slots.release()
        self.on_stored()
