"""Turns an examined source into stored tracks: by copying what is there, or by one ffmpeg that
encodes all renditions. What comes out has passed the gate, and is not yet named by any playlist."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cefmp4.errors import CefError, TransientError
from cefmp4.hls import colors, ffmpeg, gate, remux, sound, worth
from cefmp4.hls.encode import Encode, ImagePump, Images, Made
from cefmp4.hls.encoder_options import Hdr10, VideoOut
from cefmp4.hls.encoders import Choice, EncoderChooser
from cefmp4.hls.examined import AudioTrack, Examined
from cefmp4.hls.failures import check_complete, check_decoders, check_exit, last_words
from cefmp4.hls.filters import ImagesOut, Input
from cefmp4.hls.fit import MAX_CUT_S, Fit, fit_of, notes_of
from cefmp4.hls.fragments import Fragment, Init
from cefmp4.hls.lengths import remeasured
from cefmp4.hls.remux import CopyRefusedError, CopyWatch
from cefmp4.hls.result import StoredTrack, Tier
from cefmp4.hls.sound import audio_outs, audio_pumps, by_name, silent
from cefmp4.hls.stills import Stills
from cefmp4.hls.thumbnails import SpritePlan
from cefmp4.hls.track_pump import TrackPump
from cefmp4.media.ffmpeg_run import FfmpegRun, Pump
from cefmp4.media.mp4_boxes import BrokenMediaError
from cefmp4.media.pipes import Pipes
from cefmp4.media.stderr import last_line
from cefmp4.model.rendition import Rendition

_DAMAGED = re.compile(r"Packet corrupt|non-existing PPS")


class OutlastedError(CefError):
    """Far more is heard than seen, and only what came out told so: `examined` has its lengths."""

    def __init__(self, examined: Examined) -> None:
        super().__init__("its sound outlasts its pictures")
        self.examined = examined


async def copy_tracks(encode: Encode, examined: Examined, stills: Stills | None) -> Made:
    """Raises CopyRefusedError where the source turns out not to fit, and what the gate says
    where it is not all there: encoding would find no more."""
    codec = remux.copied_codec(examined)
    picture = examined.video.picture
    name = f"{codec}-{min(picture.width, picture.height)}p"
    run = encode.run(examined.duration_s)
    watch, fit = CopyWatch(codec), fit_of(examined)

    async def look(fragment: Fragment, init: Init) -> None:
        watch.check(fragment, init)
        if stills:
            await stills.take(fragment, init)

    video = TrackPump(name, encode.sink, on_stored=run.moved, look=look, encoder="copy")
    audios = by_name(examined.audio)
    pumps = [video, *audio_pumps(audios, encode.sink, run.moved)]
    with Pipes(len(pumps)) as pipes:
        out = VideoOut(fd=pipes.write_fds[0], encoder="", codec=codec)
        outs = audio_outs(audios, pipes.write_fds[1:], end_s=fit.end_s, may_copy=True)
        argv = ffmpeg.copy_command(encode.program, _input(encode, examined), out, outs)
        try:
            ended = await run.run(pipes, argv, [pump.pump for pump in pumps])
        except BrokenMediaError as error:
            raise CopyRefusedError(str(error)) from error
    if stills:
        await stills.end()
    if _DAMAGED.search(ended.stderr.head):
        raise CopyRefusedError("packets of it are damaged or lost")
    if ended.returncode != 0:
        check_decoders(ended.stderr)
        raise CopyRefusedError(f"copying failed: {last_line(ended.stderr.tail)}")
    copied = video.stored()
    excess_s = (copied.end_s if copied else 0.0) - examined.pictures_end_s
    if excess_s > remux.DURATION_TOLERANCE_S:
        raise CopyRefusedError(f"it has {excess_s:.2f} s more than it shows: an edit list")
    tracks, notes = await _checked(encode, examined, fit, pumps, 1)
    errors = ended.stderr.errors + watch.damaged
    return Made(tier=Tier.COPY, tracks=tracks, errors=errors, notes=notes)


async def encode_tracks(
    encode: Encode,
    examined: Examined,
    renditions: Sequence[Rendition],
    choice: Choice,
    chooser: EncoderChooser,
    plan: SpritePlan | None,
) -> Made:
    fit = fit_of(examined)
    told_s = examined.pictures_end_s + fit.held_s
    run = encode.run(told_s)

    def reached(out_time_s: float) -> None:
        worth.check_reached(encode.source.size, out_time_s, told_s, renditions[0].frame_rate)
        run.reached(out_time_s)

    videos = [
        TrackPump(
            r.name,
            encode.sink,
            on_stored=run.moved,
            on_reached=reached if r is renditions[0] else _ignored,
            encoder=encoder,
            hdr=r.hdr,
        )
        for r, encoder in zip(renditions, choice.encoders, strict=True)
    ]
    audios = by_name(examined.audio)
    pumps = [*videos, *audio_pumps(audios, encode.sink, run.moved)]
    sprite, poster = ImagePump(), ImagePump()
    images: list[Pump] = [sprite.pump, poster.pump] if plan else []
    with Pipes(len(pumps) + len(images)) as pipes:
        fds = pipes.write_fds
        argv = ffmpeg.encode_command(
            encode.program,
            _input(encode, examined, fit.held_s),
            _video_outs(examined, renditions, choice, fds),
            audio_outs(audios, fds[len(videos) : len(pumps)], end_s=fit.end_s, may_copy=False),
            ImagesOut(sprite_fd=fds[-2], poster_fd=fds[-1], plan=plan) if plan else None,
        )
        try:
            ended = await run.run(pipes, argv, [*(pump.pump for pump in pumps), *images])
        except BrokenMediaError as error:
            raise TransientError(f"ffmpeg wrote what it should not: {error}") from error
    check_exit(ended, encode.source, gpu=chooser if choice.needs_gpu else None)
    tracks, notes = await _checked(encode, examined, fit, pumps, len(videos))
    return Made(
        tier=Tier.GPU if choice.needs_gpu else Tier.CPU,
        tracks=tracks,
        errors=ended.stderr.errors,
        notes=notes,
        fallbacks=tuple(f"{tried.encoder}: {tried.reason}" for tried in choice.fallbacks),
        images=Images(sprite=bytes(sprite.data), poster=bytes(poster.data), plan=plan),
    )


async def make_images(encode: Encode, examined: Examined, stills: Stills) -> Images:
    """Sprite and poster of a copy that goes on meanwhile. How long it takes is for the copy to
    say: without pictures to decode there is no progress to watch."""
    limits = encode.limits.of(examined.duration_s)
    run = FfmpegRun(
        limits=replace(limits, stall_s=limits.total_s),
        on_pace=lambda _pace: None,
        cancel=encode.cancel,
        feed=stills.feed,
    )
    sprite, poster = ImagePump(), ImagePump()
    with Pipes(2) as pipes:
        sprite_fd, poster_fd = pipes.write_fds
        out = ImagesOut(sprite_fd=sprite_fd, poster_fd=poster_fd, plan=stills.plan)
        argv = ffmpeg.stills_command(encode.program, _input(encode, examined), out)
        ended = await run.run(pipes, argv, [sprite.pump, poster.pump])
    if ended.returncode != 0:
        raise TransientError(last_words(ended))
    return Images(
        sprite=bytes(sprite.data),
        poster=bytes(poster.data),
        plan=stills.plan,
        errors=ended.stderr.errors,
    )


async def _checked(
    encode: Encode, examined: Examined, fit: Fit, pumps: Sequence[TrackPump], videos: int
) -> tuple[tuple[StoredTrack, ...], tuple[str, ...]]:
    """The tracks, of which the first `videos` are pictures, and what is to be told of them."""
    stored = {pump.name: pump.stored() for pump in pumps}
    torn = [f"{pump.name} is torn" for pump in pumps if pump.is_torn]
    problems = torn or gate.problems(examined, stored, videos, fit)
    # From a server only what ffmpeg got would be measured again, perhaps cut off at the same
    # place.
    if problems and not torn and examined.is_length_a_guess and not encode.source.is_remote:
        told = await remeasured(encode.source, examined, encode.ffprobe)
        problems = gate.problems(told, stored, videos, fit)
    check_complete(problems, encode.source)
    tracks = [track for track in stored.values() if track and track.rows]
    audios = by_name(examined.audio)
    _check_outlasting(examined, fit, tracks, audios)
    fitting, refitted = await sound.refit(encode, audios, tracks, examined.video.index)
    notes = (*silent(audios, stored), *notes_of(fit, list(audios.values())), *refitted)
    return fitting, (*examined.notes, *notes)


def _check_outlasting(
    examined: Examined, fit: Fit, tracks: Sequence[StoredTrack], audios: Mapping[str, AudioTrack]
) -> None:
    """Raises OutlastedError where the last picture would have had to stay."""
    seen_s = tracks[0].end_s
    heard = {audios[track.name].index: track.end_s for track in tracks if not track.is_video}
    if fit.held_s or max(heard.values(), default=0.0) - seen_s <= MAX_CUT_S:
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


def _input(encode: Encode, examined: Examined, held_s: float = 0.0) -> Input:
    video = examined.video
    return Input(
        argument=encode.source.argument,
        is_remote=encode.source.is_remote,
        video=video.index,
        pixels=video.width * video.height,
        is_interlaced=video.is_interlaced,
        hdr=video.picture.hdr,
        colors=video.meant_colors,
        are_colors_told=colors.is_told(video.color) or not colors.is_sd(video.width, video.height),
        is_full_range=video.is_full_range,
        is_rgb=colors.is_rgb(video.pix_fmt),
        held_s=held_s,
    )


def _video_outs(
    examined: Examined, renditions: Sequence[Rendition], choice: Choice, fds: Sequence[int]
) -> list[VideoOut]:
    primaries, transfer, matrix = examined.video.meant_colors
    hdr10 = Hdr10(
        primaries=primaries,
        transfer=transfer,
        matrix=matrix,
        mastering=examined.mastering,
        light_level=examined.light_level,
    )
    return [
        VideoOut(fd=fd, encoder=encoder, codec=r.codec, rendition=r, colors=hdr10)
        for fd, encoder, r in zip(fds, choice.encoders, renditions, strict=False)
    ]


def _ignored(_seconds: float) -> None:
    """Renditions advance together; the largest one speaks for all."""
