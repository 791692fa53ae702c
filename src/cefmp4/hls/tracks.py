"""Turns an examined source into stored tracks: by copying what is there, or by one ffmpeg that
encodes all renditions. What comes out has passed the gate, and is not yet named by any playlist."""

import re
from collections.abc import Sequence
from dataclasses import replace

from cefmp4.errors import CefError, TransientError
from cefmp4.hls import ffmpeg, gate, remux, sound, worth
from cefmp4.hls.encode import Encode, ImagePump, complete
from cefmp4.hls.encoders import Choice
from cefmp4.hls.examined import MAX_CUT_S, ExaminedVideo
from cefmp4.hls.failures import check_decoders, check_exit
from cefmp4.hls.filters import filter_graph
from cefmp4.hls.fragments import Fragment
from cefmp4.hls.remux import CopyRefusedError, CopyWatch
from cefmp4.hls.result import HlsResult, StoredTrack, Tier
from cefmp4.hls.stills import Stills
from cefmp4.hls.thumbnails import Images, SpritePlan
from cefmp4.hls.track_pump import TrackPump
from cefmp4.media.mp4_boxes import BrokenMediaError
from cefmp4.media.stderr import last_line
from cefmp4.model.rendition import Codec, Rendition

_DAMAGED = re.compile(r"Packet corrupt|non-existing PPS")


class OutlastedError(CefError):
    """Far more is heard than seen, and only what came out told so: `examined` has its lengths."""

    def __init__(self, examined: ExaminedVideo) -> None:
        super().__init__("its sound outlasts its pictures")
        self.examined = examined


async def copy_tracks(encode: Encode, examined: ExaminedVideo, stills: Stills | None) -> HlsResult:
    """Raises CopyRefusedError where the source turns out not to fit, and what the gate says
    where it is not all there: encoding would find no more."""
    codec, picture = Codec(examined.video.codec), examined.video.picture
    run, watch = encode.run(examined.duration_s), CopyWatch(codec)

    async def look(fragment: Fragment) -> None:
        watch.check(fragment)
        if stills:
            await stills.take(fragment)

    video = TrackPump(
        name=f"{codec}-{min(picture.width, picture.height)}p",
        sink=encode.sink,
        options=ffmpeg.copied_video(examined.video),
        on_stored=run.moved,
        look=look,
        encoder="copy",
    )
    audios = sound.audio_pumps(encode, run, examined.heard, examined.end_s, may_copy=True)
    pumps = [video, *audios]
    try:
        await run.run(ffmpeg.reading(encode.options.program, encode.source), pumps)
    except BrokenMediaError as error:
        raise CopyRefusedError(str(error)) from error
    if stills:
        await stills.end()
    if _DAMAGED.search(run.stderr.head):
        raise CopyRefusedError("packets of it are damaged or lost")
    if run.returncode != 0:
        check_decoders(run.stderr)
        raise CopyRefusedError(f"copying failed: {last_line(run.stderr.tail)}")
    copied = video.stored()
    excess_s = (copied.end_s if copied else 0.0) - examined.pictures_end_s
    if excess_s > remux.DURATION_TOLERANCE_S:
        raise CopyRefusedError(f"it has {excess_s:.2f} s more than it shows: an edit list")
    tracks, notes = await _checked(encode, examined, pumps)
    errors = run.stderr.errors + watch.damaged
    return HlsResult(tier=Tier.COPY, tracks=tracks, errors=errors, notes=notes)


async def encode_tracks(
    encode: Encode,
    examined: ExaminedVideo,
    renditions: Sequence[Rendition],
    choice: Choice,
    plan: SpritePlan | None,
) -> HlsResult:
    video, held_s = examined.video, examined.held_s
    told_s = examined.pictures_end_s + held_s
    run = encode.run(told_s)
    encodings = list(zip(renditions, choice.encoders, strict=True))

    def reached(out_time_s: float) -> None:
        """Renditions advance together; the largest one speaks for all."""
        worth.check_reached(encode.source.size, out_time_s, told_s, renditions[0].frame_rate)
        run.reached(out_time_s)

    def pump(number: int, rendition: Rendition, encoder: str) -> TrackPump:
        told = ffmpeg.encoder_options(rendition, encoder, video.meant_colors, examined.hdr10)
        return TrackPump(
            name=rendition.name,
            sink=encode.sink,
            options=ffmpeg.video(f"[v{number}]", told),
            on_stored=run.moved,
            on_reached=None if number else reached,
            encoder=encoder,
            hdr=rendition.hdr,
        )

    videos = [pump(number, *encoding) for number, encoding in enumerate(encodings)]
    audios = sound.audio_pumps(encode, run, examined.heard, examined.end_s, may_copy=False)
    sprite, poster = ImagePump("sprite"), ImagePump("poster")
    images = (sprite, poster) if plan else ()
    graph = filter_graph(video, encodings, plan, held_s)
    argv = ffmpeg.reading(encode.options.program, encode.source, graph)
    try:
        await run.run(argv, [*videos, *audios, *images])
    except BrokenMediaError as error:
        raise TransientError(f"ffmpeg wrote what it should not: {error}") from error
    check_exit(run, encode.source, gpu=encode.chooser if choice.needs_gpu else None)
    tracks, notes = await _checked(encode, examined, [*videos, *audios])
    return HlsResult(
        tier=Tier.GPU if choice.needs_gpu else Tier.CPU,
        tracks=tracks,
        errors=run.stderr.errors,
        notes=notes,
        fallbacks=choice.fallbacks,
        images=Images(sprite=sprite.data, poster=poster.data, plan=plan),
    )


async def _checked(
    encode: Encode, examined: ExaminedVideo, pumps: Sequence[TrackPump]
) -> tuple[tuple[StoredTrack, ...], tuple[str, ...]]:
    """The tracks, and what is to be told of them."""
    stored = await complete(encode, examined, pumps)
    tracks = [track for track in stored.values() if track]
    _check_outlasting(examined, tracks)
    fitting, refitted = await sound.refit(encode, examined, tracks)
    return fitting, (*gate.notes_of(examined, stored), *refitted)


def _check_outlasting(examined: ExaminedVideo, tracks: Sequence[StoredTrack]) -> None:
    """Raises OutlastedError where the last picture would have had to stay."""
    seen_s = tracks[0].end_s
    heard = {
        examined.heard[track.name].index: track.end_s for track in tracks if not track.is_video
    }
    if examined.held_s or max(heard.values(), default=0.0) - seen_s <= MAX_CUT_S:
        return
    measured = replace(
        examined,
        duration_s=seen_s - examined.video.start_s,
        is_length_a_guess=False,
        audio=tuple(
            replace(track, duration_s=heard.get(track.index, track.end_s or 0.0) - track.start_s)
            for track in examined.audio
        ),
    )
    raise OutlastedError(measured)
