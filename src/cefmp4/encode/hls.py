"""Makes HLS of one recording: examine, copy or encode, check, describe. Whatever goes wrong,
nothing of it stays in the store; when all went well, `publish` makes it visible."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace

import structlog

from cefmp4.encode import playlist, remux, result
from cefmp4.encode.encoders import EncoderChooser
from cefmp4.encode.making import Job, Made, Maker
from cefmp4.encode.publish import MASTER, RESULT, STAGED
from cefmp4.encode.remux import CopyRefusedError
from cefmp4.encode.result import (
    EncodeCancelledError,
    HlsResult,
    NeedsEncoderError,
    Progress,
    Tier,
)
from cefmp4.encode.run import first_error
from cefmp4.encode.sink import SegmentSink
from cefmp4.encode.source import Examined, Ffprobe, HlsSource, examine, packets
from cefmp4.encode.stills import Stills
from cefmp4.encode.thumbnails import SpritePlan, plan_sprite, webvtt
from cefmp4.errors import PermanentError, TransientError
from cefmp4.model.rendition import RUNGS, CodecChoice, ladder

log = structlog.get_logger()

_IMAGES = "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsOptions:
    codecs: CodecChoice = CodecChoice.BOTH
    rungs: tuple[int, ...] = RUNGS
    may_copy: bool = True
    has_thumbnails: bool = True
    ffprobe: Ffprobe = field(default_factory=Ffprobe)
    images_patience_s: float = 30.0  # after a copy is done


class HlsEncoder:
    """One for all jobs of a worker; `encode` may run several times at once."""

    def __init__(
        self, *, maker: Maker, chooser: EncoderChooser, options: HlsOptions | None = None
    ) -> None:
        self._maker = maker
        self._chooser = chooser
        self._options = options or HlsOptions()

    async def encode(
        self,
        source: HlsSource,
        sink: SegmentSink,
        *,
        allowed: Tier = Tier.GPU,
        progress: Callable[[Progress], None] = lambda _progress: None,
        cancel: asyncio.Event | None = None,
    ) -> HlsResult:
        """Everything is stored when this returns, and nothing of it is visible before `publish`.

        `allowed` is the most that may be used; NeedsEncoderError says that it is not enough.
        PermanentError: the recording is the reason; TransientError: another attempt may work;
        EncodeCancelledError: after `cancel`. After any error nothing of this attempt is left."""
        started = time.monotonic()
        job = Job(
            source=source,
            sink=sink,
            progress=progress,
            cancel=cancel,
            ffprobe=self._options.ffprobe,
        )
        try:
            examined = await examine(source, self._options.ffprobe)
            made, not_copied = await self._make(job, examined, allowed)
            done = await _describe(sink, examined, made, not_copied, started)
            if cancel and cancel.is_set():
                raise EncodeCancelledError
        except BaseException:
            # Also when cancelled: half an encode is worth nothing and would stay for ever.
            await _to_the_end(sink.remove_own())
            raise
        log.info("hls stored", tier=done.tier, speed=round(done.speed, 2), warnings=done.warnings)
        return done

    async def _make(
        self, job: Job, examined: Examined, allowed: Tier
    ) -> tuple[Made, tuple[str, ...]]:
        """Copied if it may be, else encoded; and why it was not copied."""
        options = self._options
        picture = examined.video.picture
        plan = plan_sprite(picture, examined.duration_s) if options.has_thumbnails else None
        not_copied = await self._reasons(job.source, examined)
        if not not_copied:
            try:
                return await self._copy(job, examined, plan), ()
            except CopyRefusedError as error:
                log.info("not copied after all", reason=str(error))
                not_copied = (str(error),)
                await job.sink.remove_own()
        if allowed is Tier.COPY:
            raise NeedsEncoderError("; ".join(not_copied))
        renditions = ladder(picture, options.codecs, options.rungs)
        choice = await self._chooser.choose(renditions, use_gpu=allowed is Tier.GPU)
        return await self._maker.encode(job, examined, renditions, choice, plan), not_copied

    async def _reasons(self, source: HlsSource, examined: Examined) -> tuple[str, ...]:
        options = self._options
        if not options.may_copy:
            return ("copying is turned off",)
        if reasons := remux.reasons_against(examined, options.codecs, options.rungs[0]):
            return reasons

        async def look(interval: str) -> list[tuple[float, str]]:
            return await packets(source, examined.video.index, interval, options.ffprobe)

        # One after the other: from a server the second look is a request of its own.
        if reasons := remux.reasons_in_head(await look(remux.HEAD_INTERVAL)):
            return reasons
        return remux.reasons_in_tail(await look(remux.TAIL_INTERVAL))

    async def _copy(self, job: Job, examined: Examined, plan: SpritePlan | None) -> Made:
        if plan is None:
            return await self._maker.copy(job, examined, None)
        stills = Stills(plan)
        try:
            async with asyncio.TaskGroup() as group:
                images = group.create_task(self._images(job, examined, stills), name="images")
                made = await self._maker.copy(job, examined, stills)
                # It has had nearly everything by now. A decoder that hangs must not hang the job.
                await asyncio.wait([images], timeout=self._options.images_patience_s)
                images.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        if images.cancelled():
            log.warning("no thumbnails", reason="they were not decoded in time")
            return made
        sprite, poster = images.result()
        return replace(made, sprite=sprite, poster=poster)

    async def _images(self, job: Job, examined: Examined, stills: Stills) -> tuple[bytes, bytes]:
        """A recording without thumbnails is worth more than none."""
        try:
            return await self._maker.images(job, examined, stills)
        except (TransientError, PermanentError) as error:
            log.warning("no thumbnails", reason=str(error))
            return b"", b""
        finally:
            stills.abandon()


async def _describe(
    sink: SegmentSink,
    examined: Examined,
    made: Made,
    not_copied: tuple[str, ...],
    started: float,
) -> HlsResult:
    """Stores the playlists and images, and last what `publish` will make visible."""
    poster, thumbnails = await _put_texts(sink, examined, made)
    done = HlsResult(
        stream_id=sink.stream_id,
        bucket=sink.bucket,
        tier=made.tier,
        duration_s=made.tracks[0].end_s,
        master_key=sink.prefix + MASTER,
        result_key=sink.prefix + RESULT,
        poster_key=poster,
        thumbnails_key=thumbnails,
        tracks=made.tracks,
        not_copied=not_copied,
        fallbacks=made.fallbacks,
        warnings=made.warnings,
        seconds=time.monotonic() - started,
    )
    staged = sink.folder(STAGED)
    await sink.put(f"{staged}/{RESULT}", result.as_json(done))
    await sink.put(f"{staged}/{MASTER}", playlist.master_playlist(done.tracks).encode())
    return done


async def _put_texts(sink: SegmentSink, examined: Examined, made: Made) -> tuple[str, str]:
    """The keys of the poster and of the thumbnail track, "" for what there is not."""
    texts = _playlists(made)
    folder = sink.folder(_IMAGES)
    poster, thumbnails = f"{folder}/poster.jpg", f"{folder}/thumbnails.vtt"
    if made.poster:
        texts[poster] = made.poster
    if made.sprite:
        plan = plan_sprite(examined.video.picture, examined.duration_s)
        texts[f"{folder}/sprite.jpg"] = made.sprite
        texts[thumbnails] = webvtt(plan, "sprite.jpg", made.tracks[0].end_s).encode()
    try:
        async with asyncio.TaskGroup() as group:
            for name, data in texts.items():
                group.create_task(sink.put(name, data), name=f"put {name}")
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
    return (
        sink.prefix + poster if made.poster else "",
        sink.prefix + thumbnails if made.sprite else "",
    )


def _playlists(made: Made) -> dict[str, bytes]:
    target_s = playlist.target_duration(made.tracks)
    texts: dict[str, bytes] = {}
    for track in made.tracks:
        media = playlist.media_playlist(track, target_s)
        texts[f"{track.folder}/{playlist.MEDIA}"] = media.encode()
        if track.is_video:
            key_frames = playlist.key_frame_playlist(track, target_s)
            texts[f"{track.folder}/{playlist.KEY_FRAMES}"] = key_frames.encode()
    return texts


async def _to_the_end(work: Coroutine[None, None, None]) -> None:
    """A cancel must not tear the cleaning up; it goes on its way afterwards."""
    task, cancelled = asyncio.create_task(work, name="remove own"), False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
