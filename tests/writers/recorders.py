"""ffmpeg in the modes that recorders use."""

import time

from tests.writers.recording import Recording, Writer, ffmpeg, start_recorder, wait_half_way

AGAIN_S = 1.0  # between the two runs of a recorder that takes the same name again


def _ffmpeg_writer(name: str, about: str, *options: str, suffix: str = ".mp4") -> Writer:
    def write(recording: Recording) -> None:
        ffmpeg(*recording.ffmpeg_input(), *options, str(recording.output))

    return Writer(name, about, write, suffix)


def _movflags(flags: str) -> tuple[str, ...]:
    return ("-c", "copy", "-movflags", flags, "-f", "mp4")


def killed(recording: Recording) -> None:
    recorder = start_recorder(recording)
    wait_half_way(recording, recorder)
    recorder.kill()
    recorder.wait()


def re_recorded(recording: Recording) -> None:
    ffmpeg(*recording.ffmpeg_input(), "-c", "copy", "-f", "mp4", str(recording.output))
    time.sleep(AGAIN_S)
    shorter = recording.ffmpeg_input(recording.seconds * 0.7)
    ffmpeg(*shorter, "-c", "copy", "-f", "mp4", str(recording.output))


def segments(recording: Recording) -> None:
    pattern = recording.output.with_name(f"{recording.output.stem}_%03d.mp4")
    ffmpeg(
        *recording.ffmpeg_input(),
        *("-c", "copy", "-f", "segment", "-segment_time", str(recording.seconds / 3)),
        *("-reset_timestamps", "1", "-segment_format", "mp4", str(pattern)),
    )


def hls(recording: Recording) -> None:
    ffmpeg(
        *recording.ffmpeg_input(),
        *("-c", "copy", "-f", "hls", "-hls_time", str(recording.seconds / 3)),
        *("-hls_segment_type", "fmp4", "-hls_list_size", "0"),
        str(recording.output.with_suffix(".m3u8")),
    )


RECORDERS = (
    _ffmpeg_writer(
        "ffmpeg_mp4",
        "the size of the media data is patched at byte 40 when it closes",
        *("-c", "copy", "-f", "mp4"),
    ),
    _ffmpeg_writer(
        "ffmpeg_faststart",
        "everything is shifted at the close, to make room for the index",
        *_movflags("+faststart"),
    ),
    _ffmpeg_writer("ffmpeg_fragmented", "appends only", *_movflags("+frag_keyframe+empty_moov")),
    _ffmpeg_writer(
        "ffmpeg_delay_moov",
        "patches sizes of boxes a little behind its position",
        *_movflags("+frag_keyframe+delay_moov"),
    ),
    _ffmpeg_writer(
        "ffmpeg_global_sidx",
        "a fragmented file that is shifted as a whole at the close",
        *_movflags("+frag_keyframe+empty_moov+default_base_moof+global_sidx"),
    ),
    _ffmpeg_writer(
        "ffmpeg_m4a",
        "sound alone: a file far smaller than one part",
        *("-vn", "-c:a", "copy", "-f", "ipod"),
        suffix=".m4a",
    ),
    _ffmpeg_writer("ffmpeg_mov", "as mp4", *("-c", "copy", "-f", "mov"), suffix=".mov"),
    _ffmpeg_writer(
        "ffmpeg_mkv",
        "the head is written again when it closes",
        *("-c", "copy", "-f", "matroska"),
        suffix=".mkv",
    ),
    _ffmpeg_writer(
        "ffmpeg_mkv_reserved",
        "the index goes into a gap of 100 KB that was left at the head",
        *("-c", "copy", "-reserve_index_space", "100000", "-f", "matroska"),
        suffix=".mkv",
    ),
    _ffmpeg_writer(
        "ffmpeg_mkv_cues_to_front",
        "everything is shifted at the close",
        *("-c", "copy", "-cues_to_front", "1", "-f", "matroska"),
        suffix=".mkv",
    ),
    _ffmpeg_writer("ffmpeg_ts", "appends only", *("-c", "copy", "-f", "mpegts"), suffix=".ts"),
    Writer("ffmpeg_segments", "several files, each opened as the one before closes", segments),
    Writer(
        "ffmpeg_hls",
        "a head, media segments, and a playlist that is renamed over itself",
        hls,
        unplayable=("init.mp4", "*.m4s"),
    ),
    Writer("ffmpeg_killed", "kill -9 half way: no index", killed, unplayable=("*",)),
    Writer(
        "ffmpeg_re_recorded", "a second, shorter recording is made in the same file", re_recorded
    ),
)
