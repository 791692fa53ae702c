"""The jobs, and what they may take."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator

from cefmp4.config import values
from cefmp4.config.section import MOST_BYTES, Section, setting
from cefmp4.model.part import MIB
from cefmp4.model.rendition import RUNGS, CodecChoice


class GpuUse(StrEnum):
    AUTO = "auto"
    OFF = "off"


class WorkerSettings(Section):
    handover_jobs: Annotated[tuple[str, ...], AfterValidator(values.job_kinds)] = setting(
        ("hls",),
        "kinds of jobs made of each playable recording, with commas between them: hls, or none",
    )
    worker_max_attempts: int = setting(
        3, "times a job is begun before it counts as dead",
        small="a crash of the worker loses the job", big="a job that kills its worker does so often", ge=1, le=100,
    )  # fmt: skip
    worker_drain_seconds: float = setting(
        10, "seconds that running jobs get to end on SIGTERM; then they go back to the queue",
        small="work that was nearly done is done again", big="a stop takes that long", ge=0, le=86400,
    )  # fmt: skip
    work_reserve_bytes: int = setting(
        64 * MIB, "bytes that must be free on the disk of STATE_DIR for a job to begin; without them it waits",
        small="a full disk stops the embedded servers, too", big="jobs wait on a disk that would do",
        ge=0, le=MOST_BYTES,
    )  # fmt: skip
    gpu_slots: int = setting(
        1, "jobs that use the GPU at the same moment; none where it does not encode",
        small="the GPU stays idle", big="more encoding sessions than it has, and less for each", ge=0, le=64,
    )  # fmt: skip
    cpu_slots: int = setting(
        1, "jobs that use the CPU at the same moment; one encode uses all cores",
        small="with 0 nothing is encoded without a GPU", big="all are slower, and uploads beside them", ge=0, le=64,
    )  # fmt: skip
    hls_codec: CodecChoice = setting(
        CodecChoice.BOTH, "codecs to make: hevc+h264, hevc or h264; many browsers play h264 alone"
    )
    hls_rungs: Annotated[tuple[int, ...], AfterValidator(values.rungs)] = setting(
        RUNGS,
        "heights of the ladder, with commas between them, counted on the short side, none above the "
        "source; each is encoded and stored, and where there are few, slow networks stall",
    )
    hls_remux: bool = setting(
        True,
        "copy recordings that already fit HLS; false: encode each, which costs hours of CPU time",
    )
    hls_thumbnails: bool = setting(
        True, "make a poster and thumbnails for the seek bar; false: saves some decoding"
    )
    hls_gpu: GpuUse = setting(
        GpuUse.AUTO, "where to encode: auto, on the GPU where it works, or off, on the CPU alone"
    )
    hls_timeout_hours: float = setting(
        168, "hours that HLS of one recording may take; of a file below 32 MiB its part of them, "
        "but at least ten minutes, because a few bytes can claim to be a film of days",
        small="long recordings fail on a slow machine", big="one odd file holds a slot for longer",
        ge=0.1, le=10_000,
    )  # fmt: skip
