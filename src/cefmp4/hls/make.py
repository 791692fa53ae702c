"""Makes HLS of one recording: examine, copy or encode, check, describe. Whatever goes wrong,
nothing of it stays in the store; when all went well, `publish` makes it visible."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import structlog

from cefmp4.errors import PermanentError, first_error
from cefmp4.hls import playlist, remux, result, sound, worth
from cefmp4.hls.encode import Encode, HlsOptions
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.examined import NO_DECODER, Examined, ExaminedVideo, examine, left_out
from cefmp4.hls.failures import UndecodableTrackError
from cefmp4.hls.lengths import remeasured
from cefmp4.hls.remux import CopyRefusedError
from cefmp4.hls.result import HlsResult, NeedsEncoderError, Tier
from cefmp4.hls.stills import Stills, make_images
from cefmp4.hls.thumbnails import Images, SpritePlan, plan_sprite, webvtt
from cefmp4.hls.tracks import OutlastedError, copy_tracks, encode_tracks
from cefmp4.media.ffmpeg_run import Pace
from cefmp4.media.ffprobe import LAST_PACKETS
from cefmp4.media.source import MediaSource, UnusableSourceError
from cefmp4.model.rendition import ladder
from cefmp4.outputs.names import MASTER, RESULT, STAGED
from cefmp4.outputs.sink import SegmentSink
from cefmp4.tasks import finish

log = structlog.get_logger()

_IMAGES = "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsEncoder:
    """One for all jobs of a worker; `encode` may run several times at once."""

    chooser: EncoderChooser
    options: HlsOptions = field(default_factory=HlsOptions)

    async def encode(
        self,
        source: MediaSource,
        sink: SegmentSink,
        *,
        allowed: Tier = Tier.GPU,
        progress: Callable[[Pace], None] = lambda _pace: None,
    ) -> HlsResult:
        """Everything is stored when this returns, and nothing of it is visible before `publish`.

        `allowed` is the most that may be used; NeedsEncoderError says that it is not enough.
        PermanentError: the recording is the reason; TransientError: another attempt may work.
        After any error, and when it is cancelled, nothing of this attempt is left."""
        started = time.monotonic()
        encode = Encode(
            source=source,
            sink=sink,
            progress=progress,
            chooser=self.chooser,
            options=self.options,
        )
        try:
            async with self._time_for(source):
                done = await _describe(sink, await self._made(encode, allowed), started)
        except BaseException:
            # Also when cancelled: half an encode is worth nothing and would stay for ever.
            await finish(sink.remove_own(), name="remove own")
            raise
        log.info(
            "hls stored",
            tier=done.tier,
            speed=round(done.speed, 2),
            warnings=list(done.warning_texts),
        )
        return done

    @asynccontextmanager
    async def _time_for(self, source: MediaSource) -> AsyncIterator[None]:
        seconds = worth.longest_s(source.size, self.options.timeout_s)
        try:
            async with asyncio.timeout(seconds) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise PermanentError(
                f"it takes more than {seconds:,.0f} s, all that its {source.size:,} bytes get",
                hint="raise HLS_TIMEOUT_HOURS",
            ) from None

    async def _made(self, encode: Encode, allowed: Tier) -> HlsResult:
        """Once more without a track that turns out to be undecodable, or with the lengths that
        came out; each of that happens once for a track at most."""
        found = await examine(encode.source, self.options.ffprobe)
        if isinstance(found, ExaminedVideo) and (found.outlasting_s or _is_thin(encode, found)):
            # A header may lie, and a picture that stays for hours costs hours of encoding.
            found = await remeasured(encode.source, found, self.options.ffprobe)
        while True:
            try:
                if isinstance(found, ExaminedVideo):
                    return await self._with_pictures(encode, found, allowed)
                if not found.is_length_a_guess:
                    worth.check_length(encode.source.size, found.duration_s)
                return await sound.encode_alone(encode, found)
            except UndecodableTrackError as error:
                found = _without(found, error.index)
            except OutlastedError as error:
                found = error.examined
            await encode.sink.remove_own()

    async def _with_pictures(
        self, encode: Encode, examined: ExaminedVideo, allowed: Tier
    ) -> HlsResult:
        """Copied if it may be, else encoded."""
        options, picture = self.options, examined.video.picture
        size, shown_s = encode.source.size, examined.shown_s
        length_s = examined.duration_s + examined.outlasting_s
        worth.check_length(size, shown_s)
        plan = plan_sprite(picture, length_s) if options.has_thumbnails else None
        not_copied = await self._reasons(encode.source, examined)
        if not not_copied:
            try:
                return await self._copy(encode, examined, plan)
            except CopyRefusedError as error:
                log.info("not copied after all", reason=str(error))
                not_copied = (str(error),)
                await encode.sink.remove_own()
        if allowed is Tier.COPY:
            raise NeedsEncoderError("; ".join(not_copied))
        rate = worth.bearable_frame_rate(picture.frame_rate, size, shown_s)
        renditions = ladder(replace(picture, frame_rate=rate), options.codecs, options.rungs)
        choice = await self.chooser.choose(renditions, use_gpu=allowed is Tier.GPU)
        made = await encode_tracks(encode, examined, renditions, choice, plan)
        told = f"{float(rate):g} pictures per second: its bytes cannot hold more"
        notes = (*made.notes, told) if rate < picture.frame_rate else made.notes
        return replace(made, not_copied=not_copied, notes=notes)

    async def _reasons(self, source: MediaSource, examined: ExaminedVideo) -> tuple[str, ...]:
        options = self.options
        if not options.may_copy:
            return ("copying is turned off",)
        if reasons := remux.reasons_against(examined, options.codecs, options.rungs[0]):
            return reasons

        # One after the other: from a server the second look is a request of its own.
        index, ffprobe = examined.video.index, options.ffprobe
        head = await ffprobe.packets(source, index, remux.HEAD_INTERVAL)
        if reasons := remux.reasons_in_head(head):
            return reasons
        return remux.reasons_in_tail(await ffprobe.packets(source, index, LAST_PACKETS))

    async def _copy(
        self, encode: Encode, examined: ExaminedVideo, plan: SpritePlan | None
    ) -> HlsResult:
        if plan is None:
            return await copy_tracks(encode, examined, None)
        stills = Stills(plan)
        with first_error():
            async with asyncio.TaskGroup() as group:
                images = group.create_task(make_images(encode, examined, stills), name="images")
                made = await copy_tracks(encode, examined, stills)
                # It has had nearly everything by now. A decoder that hangs must not hang the job.
                await asyncio.wait([images], timeout=self.options.images_patience_s)
                images.cancel()
        if images.cancelled():
            log.warning("no thumbnails", reason="they were not decoded in time")
            return made
        decoded = images.result()
        return replace(made, images=decoded, errors=made.errors + decoded.errors)


def _is_thin(encode: Encode, examined: ExaminedVideo) -> bool:
    rate = examined.video.picture.frame_rate
    return worth.is_thin(rate, encode.source.size, examined.shown_s)


def _without(found: Examined, index: int) -> Examined:
    """Raises UnusableSourceError where it is the pictures, or all the sound of sound alone."""
    track = next((track for track in found.audio if track.index == index), None)
    if track and (isinstance(found, ExaminedVideo) or len(found.audio) > 1):
        return replace(
            found,
            audio=tuple(other for other in found.audio if other is not track),
            notes=(*found.notes, left_out(index, track.codec, NO_DECODER)),
        )
    codec = found.video.codec if isinstance(found, ExaminedVideo) else found.audio[0].codec
    raise UnusableSourceError(f"codec {codec} is not supported by this ffmpeg")


async def _describe(sink: SegmentSink, made: HlsResult, started: float) -> HlsResult:
    """Stores the playlists and images, and last what `publish` will make visible."""
    folder = sink.folder(_IMAGES)
    poster, thumbnails = f"{folder}/poster.jpg", f"{folder}/thumbnails.vtt"
    texts, images = _playlists(made), made.images
    if images.poster:
        texts[poster] = images.poster
    if images.sprite and images.plan:
        texts[f"{folder}/sprite.jpg"] = images.sprite
        texts[thumbnails] = webvtt(images.plan, "sprite.jpg", made.duration_s).encode()
    with first_error():
        async with asyncio.TaskGroup() as group:
            for name, data in texts.items():
                group.create_task(sink.put(name, data), name=f"put {name}")
    done = replace(
        made,
        stream_id=sink.stream_id,
        bucket=sink.bucket,
        master_key=sink.prefix + MASTER,
        poster_key=sink.prefix + poster if poster in texts else "",
        thumbnails_key=sink.prefix + thumbnails if thumbnails in texts else "",
        images=Images(),  # they are stored
        seconds=time.monotonic() - started,
    )
    staged = sink.folder(STAGED)
    await sink.put(f"{staged}/{RESULT}", result.as_json(done))
    await sink.put(f"{staged}/{MASTER}", playlist.master_playlist(done.tracks).encode())
    return done


def _playlists(made: HlsResult) -> dict[str, bytes]:
    target_s = playlist.target_duration(made.tracks)
    texts: dict[str, bytes] = {}
    for track in made.tracks:
        media = playlist.media_playlist(track, target_s)
        texts[f"{track.folder}/{playlist.MEDIA}"] = media.encode()
        if track.is_video:
            key_frames = playlist.key_frame_playlist(track, target_s)
            texts[f"{track.folder}/{playlist.KEY_FRAMES}"] = key_frames.encode()
    return texts
