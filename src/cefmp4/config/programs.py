"""ffmpeg and ffprobe, and what a hostile file may cost."""

from cefmp4.config.section import MOST_BYTES, Section, setting
from cefmp4.model.part import MIB


class ProgramSettings(Section):
    ffmpeg_path: str = setting("ffmpeg", "the ffmpeg program")
    ffmpeg_memory_bytes: int = setting(
        0, "bytes of memory one ffmpeg may use; 0: three quarters of what this machine or container has",
        small="large pictures are not encoded", big="a hostile file takes memory from everything else",
        ge=0, le=MOST_BYTES,
    )  # fmt: skip
    ffprobe_path: str = setting("ffprobe", "the ffprobe program")
    ffprobe_timeout_seconds: float = setting(
        30, "seconds one ffprobe run may take",
        small="large files are not described", big="a hostile file holds a slot that long", gt=0, le=3600,
    )  # fmt: skip
    ffprobe_memory_bytes: int = setting(
        1024 * MIB, "bytes of address space one ffprobe run may use",
        small="large files are not described", big="a hostile file takes that much",
        ge=512 * MIB, le=MOST_BYTES,
    )  # fmt: skip
