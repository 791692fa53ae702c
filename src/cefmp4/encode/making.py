"""Turns an examined source into stored tracks: by copying what is there, or by one ffmpeg that
encodes all renditions. What comes out has passed the gate, and is not yet named by any playlist."""

import asyncio
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cefmp4.encode import ffmpeg, gate, remux
from cefmp4.encode.boxes import BrokenMediaError
from cefmp4.encode.encoder_options import Hdr10, VideoOut
from cefmp4.encode.encoders import Choice, EncoderChooser
from cefmp4.encode.ffmpeg import AudioOut, ImagesOut, Input
from cefmp4.encode.fragments import Fragment, Init
from cefmp4.encode.lengths import remeasured
from cefmp4.encode.pipes import Pipes
from cefmp4.encode.remux import CopyRefusedError, CopyWatch
from cefmp4.encode.result import Progress, StoredTrack, Tier
from cefmp4.encode.run import Ended, FfmpegRun, Limits, Pace, Pump
from cefmp4.encode.sink import SegmentSink
from cefmp4.encode.source import AudioTrack, Examined, Ffprobe, HlsSource, check_reached
from cefmp4.encode.stills import Stills
from cefmp4.encode.thumbnails import SpritePlan
from cefmp4.encode.tracks import TrackPump
from cefmp4.errors import PermanentError, TransientError
from cefmp4.model.rendition import Rendition

MAX_AUDIO_TRACKS = 8
_DAMAGED = re.compile(r"Packet corrupt|non-existing PPS")
_CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_MAX_IMAGE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one encode reads, where it puts it, and who wants to know."""

    source: HlsSource
    sink: SegmentSink
    progress: Callable[[Progress], None]
    cancel: asyncio.Event | None = None
    ffprobe: Ffprobe = field(default_factory=Ffprobe)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    tier: Tier
    tracks: tuple[StoredTrack, ...]
    warnings: int
    fallbacks: tuple[str, ...] = ()
    sprite: bytes = b""
    poster: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakerLimits:
    """`slowest_speed`: recorded seconds per second below which an encode is given up."""

    slowest_speed: float = 0.02
    grace_s: float = 120.0
    stall_s: float = 60.0
    memory_bytes: int | None = None

    def of(self, duration_s: float) -> Limits:
        return Limits(
            total_s=self.grace_s + duration_s / self.slowest_speed,
            stall_s=self.stall_s,
            memory_bytes=self.memory_bytes,
        )


@dataclass(slots=True)
class _Image:
    data: bytearray = field(default_factory=bytearray)

    async def pump(self, pipe: asyncio.StreamReader) -> None:
        while piece := await pipe.read(_MAX_IMAGE_BYTES):
            if len(self.data) < _MAX_IMAGE_BYTES:
                self.data += piece


class Maker:
    def __init__(
        self, *, program: str, chooser: EncoderChooser, limits: MakerLimits | None = None
    ) -> None:
        self._program = program
        self._chooser = chooser
        self._limits = limits or MakerLimits()

    async def copy(self, job: Job, examined: Examined, stills: Stills | None) -> Made:
        """Raises CopyRefusedError where the source turns out not to fit, and what the gate says
        where it is not all there: encoding would find no more."""
        codec = remux.copied_codec(examined)
        picture = examined.video.picture
        name = f"{codec}-{min(picture.width, picture.height)}p"
        run = self._run(job, examined)
        watch = CopyWatch(codec)

        async def look(fragment: Fragment, init: Init) -> None:
            watch.check(fragment, init)
            if stills:
                await stills.take(fragment, init)

        video = TrackPump(name, job.sink, on_stored=run.moved, look=look, encoder="copy")
        audios = examined.audio[:MAX_AUDIO_TRACKS]
        pumps = [video, *_audio_pumps(audios, job.sink, run.moved)]
        with Pipes(len(pumps)) as pipes:
            out = VideoOut(fd=pipes.write_fds[0], encoder="", codec=codec)
            outs = _audio_outs(audios, pipes.write_fds[1:], is_copy=True)
            argv = ffmpeg.copy_command(self._program, _input(job, examined), out, outs)
            try:
                ended = await run.run(pipes, argv, [pump.pump for pump in pumps])
            except BrokenMediaError as error:
                raise CopyRefusedError(str(error)) from error
        if stills:
            await stills.end()
        if _DAMAGED.search(ended.complaints.head):
            raise CopyRefusedError("packets of it are damaged or lost")
        if ended.returncode != 0:
            raise CopyRefusedError(f"copying failed: {ffmpeg.last_line(ended.complaints.tail)}")
        copied = video.stored()
        excess_s = (copied.end_s if copied else 0.0) - gate.expected_s(examined)
        if excess_s > remux.DURATION_TOLERANCE_S:
            raise CopyRefusedError(f"it has {excess_s:.2f} s more than it shows: an edit list")
        tracks = await _checked(job, examined, pumps, 1)
        return Made(tier=Tier.COPY, tracks=tracks, warnings=ended.complaints.errors)

    async def encode(
        self,
        job: Job,
        examined: Examined,
        renditions: Sequence[Rendition],
        choice: Choice,
        plan: SpritePlan | None,
    ) -> Made:
        run = self._run(job, examined)
        videos = [
            TrackPump(
                r.name,
                job.sink,
                on_stored=run.moved,
                on_reached=run.reached if r is renditions[0] else _ignored,
                encoder=encoder,
                hdr=r.hdr,
            )
            for r, encoder in zip(renditions, choice.encoders, strict=True)
        ]
        audios = examined.audio[:MAX_AUDIO_TRACKS]
        pumps = [*videos, *_audio_pumps(audios, job.sink, run.moved)]
        sprite, poster = _Image(), _Image()
        images: list[Pump] = [sprite.pump, poster.pump] if plan else []
        with Pipes(len(pumps) + len(images)) as pipes:
            fds = pipes.write_fds
            argv = ffmpeg.encode_command(
                self._program,
                _input(job, examined),
                _video_outs(examined, renditions, choice, fds),
                _audio_outs(audios, fds[len(videos) : len(pumps)], is_copy=False),
                ImagesOut(sprite_fd=fds[-2], poster_fd=fds[-1], plan=plan) if plan else None,
            )
            try:
                ended = await run.run(pipes, argv, [*(pump.pump for pump in pumps), *images])
            except BrokenMediaError as error:
                raise TransientError(f"ffmpeg wrote what it should not: {error}") from error
        self._judge(job, ended, choice)
        return Made(
            tier=Tier.GPU if choice.needs_gpu else Tier.CPU,
            tracks=await _checked(job, examined, pumps, len(videos)),
            warnings=ended.complaints.errors,
            fallbacks=tuple(f"{tried.encoder}: {tried.reason}" for tried in choice.fallbacks),
            sprite=bytes(sprite.data),
            poster=bytes(poster.data),
        )

    async def images(self, job: Job, examined: Examined, stills: Stills) -> tuple[bytes, bytes]:
        """Sprite and poster of a copy that goes on meanwhile. How long it takes is for the copy to
        say: without pictures to decode there is no progress to watch."""
        limits = self._limits.of(examined.duration_s)
        run = FfmpegRun(
            limits=replace(limits, stall_s=limits.total_s),
            on_pace=lambda _pace: None,
            cancel=job.cancel,
            feed=stills.feed,
        )
        sprite, poster = _Image(), _Image()
        with Pipes(2) as pipes:
            sprite_fd, poster_fd = pipes.write_fds
            out = ImagesOut(sprite_fd=sprite_fd, poster_fd=poster_fd, plan=stills.plan)
            argv = ffmpeg.stills_command(self._program, out, examined.video.picture.hdr)
            ended = await run.run(pipes, argv, [sprite.pump, poster.pump])
        if ended.returncode != 0:
            raise TransientError(_reason(ended))
        return bytes(sprite.data), bytes(poster.data)

    def _run(self, job: Job, examined: Examined) -> FfmpegRun:
        def report(pace: Pace) -> None:
            job.progress(_progress(pace, examined.duration_s, job.sink.stored_bytes))

        return FfmpegRun(
            limits=self._limits.of(examined.duration_s),
            on_pace=report,
            cancel=job.cancel,
            pass_fds=job.source.pass_fds,
        )

    def _judge(self, job: Job, ended: Ended, choice: Choice) -> None:
        if ended.returncode == 0:
            return
        said = ended.complaints
        has_crashed = -ended.returncode in _CRASHES
        if ended.returncode < 0 and not has_crashed:
            raise TransientError(f"ffmpeg was killed by signal {-ended.returncode}")
        if choice.needs_gpu:
            # Whose fault it is the CPU will tell, in the next attempt.
            tried = self._chooser.report_failure(said.head)
            raise TransientError(f"the GPU failed in the middle: {tried.reason}")
        if has_crashed:
            raise PermanentError(f"ffmpeg crashed on it (signal {-ended.returncode})")
        if job.source.url:
            check_reached(said.head + said.tail)
        raise PermanentError(f"ffmpeg cannot encode it: {_reason(ended)}")


def _reason(ended: Ended) -> str:
    return ffmpeg.last_line(ended.complaints.tail) or f"ffmpeg ended with {ended.returncode}"


def _input(job: Job, examined: Examined) -> Input:
    return Input(
        argument=job.source.argument,
        is_remote=bool(job.source.url),
        video=examined.video.index,
        pixels=examined.video.width * examined.video.height,
        is_interlaced=examined.video.is_interlaced,
        hdr=examined.video.picture.hdr,
    )


def _video_outs(
    examined: Examined, renditions: Sequence[Rendition], choice: Choice, fds: Sequence[int]
) -> list[VideoOut]:
    primaries, transfer, matrix = examined.video.color
    colors = Hdr10(
        primaries=primaries,
        transfer=transfer,
        matrix="bt2020nc" if matrix == "gbr" else matrix,  # no longer RGB
        mastering=examined.mastering,
        light_level=examined.light_level,
    )
    return [
        VideoOut(fd=fd, encoder=encoder, codec=r.codec, rendition=r, colors=colors)
        for fd, encoder, r in zip(fds, choice.encoders, renditions, strict=False)
    ]


def _audio_pumps(
    audios: Sequence[AudioTrack], sink: SegmentSink, moved: Callable[[], None]
) -> list[TrackPump]:
    return [
        TrackPump(f"audio-{number}", sink, on_stored=moved, encoder="aac", language=track.language)
        for number, track in enumerate(audios)
    ]


def _audio_outs(
    audios: Sequence[AudioTrack], fds: Sequence[int], *, is_copy: bool
) -> list[AudioOut]:
    return [
        AudioOut(fd=fd, index=track.index, is_copy=is_copy and remux.may_copy_audio(track))
        for track, fd in zip(audios, fds, strict=True)
    ]


async def _checked(
    job: Job, examined: Examined, pumps: Sequence[TrackPump], videos: int
) -> tuple[StoredTrack, ...]:
    """What a local file lacks it will lack again; a server may send the rest next time."""
    stored = {pump.name: pump.stored() for pump in pumps}
    torn = [f"{pump.name} is torn" for pump in pumps if pump.is_torn]
    problems = torn or gate.problems(examined, stored, videos)
    # From a server only what ffmpeg got would be measured again, perhaps cut off at the same place.
    if problems and not torn and examined.is_length_a_guess and not job.source.url:
        told = await remeasured(job.source, examined, job.ffprobe)
        problems = gate.problems(told, stored, videos)
    if problems:
        kind = TransientError if job.source.url else PermanentError
        raise kind("what came out is not complete: " + "; ".join(problems[:4]))
    return tuple(track for track in stored.values() if track and track.rows)


def _ignored(_seconds: float) -> None:
    """Renditions advance together; the largest one speaks for all."""


def _progress(pace: Pace, duration_s: float, stored_bytes: int) -> Progress:
    left_s = max(0.0, duration_s - pace.out_time_s)
    return Progress(
        fraction=min(1.0, pace.out_time_s / duration_s) if duration_s else 0.0,
        out_time_s=pace.out_time_s,
        speed=pace.speed,
        fps=pace.fps,
        eta_s=left_s / pace.speed if pace.speed > 0 else None,
        stored_bytes=stored_bytes,
    )
