"""The sound of a recording: as tracks beside its pictures, made again where it turned out not to
end with them, and as all there is of a recording that has no pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cefmp4.errors import PermanentError, TransientError
from cefmp4.hls import ffmpeg, fit, gate, remux
from cefmp4.hls.encode import Encode, ImagePump, Images, Made
from cefmp4.hls.examined import AudioTrack, SoundOnly, left_out
from cefmp4.hls.failures import check_complete, check_exit
from cefmp4.hls.ffmpeg import AudioOut, WaveOut
from cefmp4.hls.filters import Input
from cefmp4.hls.lengths import measured
from cefmp4.hls.result import StoredTrack, Tier
from cefmp4.hls.track_pump import TrackPump
from cefmp4.media.ffmpeg_run import FfmpegExit
from cefmp4.media.mp4_boxes import BrokenMediaError
from cefmp4.media.pipes import Pipes
from cefmp4.outputs.sink import SegmentSink

MAX_AUDIO_TRACKS = 8


def track_name(position: int) -> str:
    return f"audio-{position}"


def by_name(audios: Sequence[AudioTrack]) -> dict[str, AudioTrack]:
    return {track_name(number): track for number, track in enumerate(audios[:MAX_AUDIO_TRACKS])}


def audio_pumps(
    audios: Mapping[str, AudioTrack], sink: SegmentSink, moved: Callable[[], None]
) -> list[TrackPump]:
    return [
        TrackPump(name, sink, on_stored=moved, encoder="aac", language=track.language)
        for name, track in audios.items()
    ]


def audio_outs(
    audios: Mapping[str, AudioTrack], fds: Sequence[int], *, end_s: float | None, may_copy: bool
) -> list[AudioOut]:
    """`end_s`: when each of them is to end; copied where it may be, and need not grow for that."""
    return [
        _audio_out(track, fd, end_s, may_copy)
        for track, fd in zip(audios.values(), fds, strict=True)
    ]


def _audio_out(track: AudioTrack, fd: int, end_s: float | None, may_copy: bool) -> AudioOut:
    if may_copy and remux.may_copy_audio(track) and not fit.is_short(track, end_s):
        end_s = end_s if fit.is_long(track, end_s) else None
        return AudioOut(fd=fd, index=track.index, is_copy=True, end_s=end_s)
    is_padded = track.end_s is not None and end_s is not None and track.end_s < end_s
    return AudioOut(fd=fd, index=track.index, is_copy=False, end_s=end_s, is_padded=is_padded)


def silent(
    audios: Mapping[str, AudioTrack], stored: Mapping[str, StoredTrack | None]
) -> tuple[str, ...]:
    """What is told of tracks of which nothing came out, although there should be something."""
    lost = gate.lost_sounds(_pairs(stored, audios))
    return tuple(
        left_out(track.index, track.codec, "nothing of it can be decoded") for track in lost
    )


def _pairs(
    stored: Mapping[str, StoredTrack | None], audios: Mapping[str, AudioTrack]
) -> list[gate.Sound]:
    return [(stored.get(name), track) for name, track in audios.items()]


async def encode_alone(encode: Encode, sound: SoundOnly, *, has_poster: bool) -> Made:
    """Tracks of a recording without pictures, and a picture of its sound."""
    audios = by_name(sound.audio)
    end_s = sound.duration_s if len(audios) > 1 else None
    poster = ImagePump() if has_poster else None
    pumps, ended = await _run(encode, audios, sound.duration_s, end_s, poster=poster)
    stored = {pump.name: pump.stored() for pump in pumps}
    torn = [f"{pump.name} is torn" for pump in pumps if pump.is_torn]
    problems = torn or list(gate.audio_problems(_pairs(stored, audios), end_s))
    if problems and not torn and sound.is_length_a_guess and not encode.source.is_remote:
        lengths = await measured(encode.source, encode.ffprobe)
        counted = {
            name: replace(track, duration_s=lengths.get(track.index, track.duration_s))
            for name, track in audios.items()
        }
        problems = list(gate.audio_problems(_pairs(stored, counted), end_s))
    check_complete(problems, encode.source)
    tracks = tuple(track for track in stored.values() if track and track.rows)
    if not tracks:
        raise PermanentError("nothing of its sound can be decoded")
    fitted = fit.notes_of(fit.Fit(end_s=end_s), sound.audio) if end_s else ()
    return Made(
        tier=Tier.COPY,
        tracks=tracks,
        errors=ended.stderr.errors,
        notes=(*sound.notes, *silent(audios, stored), *fitted),
        images=Images(poster=bytes(poster.data) if poster else b""),
    )


async def refit(
    encode: Encode,
    audios: Mapping[str, AudioTrack],
    tracks: Sequence[StoredTrack],
    video: int,
) -> tuple[tuple[StoredTrack, ...], tuple[str, ...]]:
    """`tracks` with those made again whose end is not that of the first of them; and what is
    told of that. `video`: index of the pictures."""
    end_s = tracks[0].end_s
    excess = {
        track.name: more_s
        for track in tracks
        if not track.is_video and (more_s := fit.excess_s(track, end_s))
    }
    if not excess:
        return tuple(tracks), ()
    wrong = {name: audios[name] for name in excess}
    # By what came out of them, whatever the header said.
    known = {
        name: replace(track, duration_s=max(0.0, end_s + excess[name] - track.start_s))
        for name, track in wrong.items()
    }
    for track in tracks:
        if track.name in excess:
            await encode.sink.remove_folder(track.folder)
    pumps, _ = await _run(encode, known, end_s, end_s, video=video)
    again = {pump.name: pump.stored() for pump in pumps}
    made = [again.get(track.name, track) for track in tracks]
    fits = [track for track in made if track and track.rows]
    is_torn = any(pump.is_torn for pump in pumps)
    still = [track for track in fits if not track.is_video and fit.excess_s(track, end_s)]
    if is_torn or still or len(fits) < len(tracks):
        raise TransientError("the sound could not be made to end with the pictures")
    notes = tuple(fit.told_of(wrong[name].index, more_s) for name, more_s in excess.items())
    return tuple(fits), notes


async def _run(
    encode: Encode,
    audios: Mapping[str, AudioTrack],
    duration_s: float,
    end_s: float | None,
    *,
    poster: ImagePump | None = None,
    video: int = -1,
) -> tuple[list[TrackPump], FfmpegExit]:
    run = encode.run(duration_s)
    pumps = audio_pumps(audios, encode.sink, run.moved)
    images = [poster.pump] if poster else []
    with Pipes(len(pumps) + len(images)) as pipes:
        fds = pipes.write_fds
        argv = ffmpeg.sound_command(
            encode.program,
            Input(argument=encode.source.argument, is_remote=encode.source.is_remote, video=video),
            audio_outs(audios, fds[: len(pumps)], end_s=end_s, may_copy=True),
            WaveOut(fd=fds[-1], duration_s=duration_s) if images else None,
        )
        try:
            ended = await run.run(pipes, argv, [*(pump.pump for pump in pumps), *images])
        except BrokenMediaError as error:
            raise PermanentError(f"its sound is not what its header says: {error}") from error
    check_exit(ended, encode.source)
    return pumps, ended
