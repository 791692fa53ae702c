"""The sound of a recording: as tracks beside its pictures, made again where it turned out not to
end with them, and as all there is of a recording that has no pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cefmp4.errors import PermanentError, TransientError
from cefmp4.hls import ffmpeg, gate
from cefmp4.hls.encode import Encode, ImagePump, complete
from cefmp4.hls.examined import AudioTrack, Examined, ExaminedVideo
from cefmp4.hls.failures import check_exit
from cefmp4.hls.filters import wave_graph
from cefmp4.hls.result import HlsResult, StoredTrack, Tier
from cefmp4.hls.thumbnails import Images
from cefmp4.hls.track_pump import TrackPump
from cefmp4.media.ffmpeg_run import FfmpegRun
from cefmp4.media.mp4_boxes import BrokenMediaError


def audio_pumps(
    encode: Encode,
    run: FfmpegRun,
    audios: Mapping[str, AudioTrack],
    end_s: float | None,
    *,
    may_copy: bool,
) -> list[TrackPump]:
    """`end_s`: when each of them is to end."""
    return [
        TrackPump(
            name=name,
            sink=encode.sink,
            options=ffmpeg.audio(track, end_s, may_copy=may_copy),
            on_stored=run.moved,
            encoder="aac",
            language=track.language,
        )
        for name, track in audios.items()
    ]


async def encode_alone(encode: Encode, sound: Examined) -> HlsResult:
    """Tracks of a recording without pictures, and a picture of its sound."""
    poster = ImagePump("wave")
    images = [poster] if encode.options.has_thumbnails else []
    pumps, run = await _run(encode, sound.heard, sound.duration_s, sound.end_s, images)
    stored = await complete(encode, sound, pumps)
    tracks = tuple(track for track in stored.values() if track)
    if not tracks:
        raise PermanentError("nothing of its sound can be decoded")
    return HlsResult(
        tier=Tier.COPY,
        tracks=tracks,
        errors=run.stderr.errors,
        notes=tuple(gate.notes_of(sound, stored)),
        images=Images(poster=poster.data),
    )


async def refit(
    encode: Encode, examined: ExaminedVideo, tracks: Sequence[StoredTrack]
) -> tuple[tuple[StoredTrack, ...], tuple[str, ...]]:
    """`tracks` with those made again whose end is not that of the first of them; and what is
    told of that."""
    end_s = tracks[0].end_s
    excess = {
        track.name: more_s
        for track in tracks
        if not track.is_video and (more_s := gate.excess_s(track, end_s))
    }
    if not excess:
        return tuple(tracks), ()
    # By what came out of them, whatever the header said.
    known = {
        name: replace(track, duration_s=max(0.0, end_s + excess[name] - track.start_s))
        for name, track in examined.heard.items()
        if name in excess
    }
    for name in excess:
        await encode.sink.remove_folder(encode.sink.folder(name))
    clock = ffmpeg.clock_of(examined.video.index)
    pumps, _ = await _run(encode, known, end_s, end_s, rest=clock)
    again = {pump.name: pump.stored() for pump in pumps}
    made = [again.get(track.name, track) for track in tracks]
    fits = [
        track for track in made if track and (track.is_video or not gate.excess_s(track, end_s))
    ]
    if len(fits) < len(tracks) or any(pump.is_torn for pump in pumps):
        raise TransientError("the sound could not be made to end with the pictures")
    notes = tuple(gate.told_of(known[name].index, more_s) for name, more_s in excess.items())
    return tuple(fits), notes


async def _run(
    encode: Encode,
    audios: Mapping[str, AudioTrack],
    duration_s: float,
    end_s: float | None,
    images: Sequence[ImagePump] = (),
    rest: Sequence[str] = (),
) -> tuple[list[TrackPump], FfmpegRun]:
    """`images`: of the first of the tracks; `rest`: of the command."""
    run = encode.run(duration_s)
    pumps = audio_pumps(encode, run, audios, end_s, may_copy=True)
    graph = wave_graph(next(iter(audios.values())).index, duration_s) if images else ""
    argv = ffmpeg.reading(encode.options.program, encode.source, graph)
    try:
        await run.run(argv, [*images, *pumps], rest)
    except BrokenMediaError as error:
        raise PermanentError(f"its sound is not what its header says: {error}") from error
    check_exit(run, encode.source)
    return pumps, run
