"""From the watched folder to a proven object."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from cefmp4.config import values
from cefmp4.config.section import MOST_BYTES, Section, setting
from cefmp4.model.part import GIB, MAX_PART_BYTES, MIB, MIN_PART_BYTES, PartSizing

DEFAULT_GLOBS = (
    "*.mp4", "*.m4v", "*.mov", "*.m4a", "*.m4s", "*.mkv", "*.webm", "*.ts", "*.mts", "*.m2ts",
    "*.flv", "*.avi", "*.mxf", "*.mpg", "*.3gp", "*.wav", "*.flac", "*.mp3",
)  # fmt: skip


class WatchMode(StrEnum):
    AUTO = "auto"
    EVENTS = "events"
    POLLING = "polling"


class PartTransfer(StrEnum):
    AUTO = "auto"
    CLIENT = "client"


class IngestSettings(Section):
    watch_dir: Path = setting(Path("local_watch_dir"), "the folder to watch, with all below it")
    watch_dir_id: Annotated[str, AfterValidator(values.folder_id)] = setting(
        "", "name of the watched folder that no other has, alike for all instances that share it; "
        "empty: a mark that is left in the folder; needed where the folder can only be read",
    )  # fmt: skip
    watch_filter_globs: Annotated[tuple[str, ...], AfterValidator(values.globs)] = setting(
        DEFAULT_GLOBS,
        "patterns of file names (or paths) to upload, with commas between them or as a JSON list",
    )
    watch_mode: WatchMode = setting(
        WatchMode.AUTO,
        "how changes are noticed: events (inotify), polling (NFS, SMB, some container mounts), or "
        "auto, which goes by the file system",
    )
    reconcile_seconds: float = setting(
        60, "seconds between two full looks at the folder, which find what events missed",
        small="CPU time in large folders", big="a missed file waits that long", ge=1, le=86400,
    )  # fmt: skip
    watch_max_folders: int = setting(
        250_000, "folders below WATCH_DIR that are looked at; those beyond are named in the log and left alone",
        small="recordings in the folders beyond are not uploaded",
        big="whoever writes there can make us use memory, about 1 KB a folder, and CPU time", ge=1, le=10_000_000,
    )  # fmt: skip
    poll_seconds: float = setting(
        0.5, "seconds between two looks at the files that are being recorded",
        small="CPU time", big="parts leave later", ge=0.05, le=60,
    )  # fmt: skip
    settle_seconds: float = setting(
        2, "seconds a closed file must stay unchanged before it is completed",
        small="a file that is patched after its close is stored twice", big="objects appear later", ge=0, le=3600,
    )  # fmt: skip
    stream_timeout_seconds: float = setting(
        30, "seconds without any change after which a file counts as finished even while it is still open",
        small="a paused recorder's file is stored early, and again when it goes on", big="files whose close was missed wait",
        gt=0, le=86400,
    )  # fmt: skip
    watch_file_min_age_seconds_for_idle: float = setting(
        10, "seconds a closed file must be quiet where the file system cannot tell whether a writer has it open",
        small="a file may be completed under its writer", big="objects appear later", ge=0, le=86400,
    )  # fmt: skip
    holes_limit_bytes: int = setting(
        GIB, "bytes that a finished file may lack, never written to it and taking no room on the disk (holes), where "
        "they are more than half of it; with more it waits for its data, and fails after 10 minutes",
        small="sparse files of programs fail that are done with them", big="one command of whoever writes to "
        "the folder makes a file of nothing that fills the store", ge=0, le=MOST_BYTES,
    )  # fmt: skip
    after_upload: Annotated[str, AfterValidator(values.after_upload)] = setting(
        "keep",
        "what becomes of a local file once its object is proven identical: keep, delete, or move:DIR",
    )
    chunk_size_bytes: int = setting(
        10 * MIB, "bytes of the first parts; later parts grow with the file",
        small="more requests", big="bytes leave later", ge=MIN_PART_BYTES, le=MAX_PART_BYTES,
    )  # fmt: skip
    part_sizing: PartSizing = setting(
        PartSizing.GROW,
        "how large later parts are: grow, or equal for stores that demand parts of one size "
        "(Cloudflare R2)",
    )
    max_concurrent_streams: int = setting(
        5, "streams that send parts at the same moment; all others take turns with them",
        small="fast links stay idle", big="each stream gets less", ge=1, le=1000,
    )  # fmt: skip
    max_parts_in_flight: int = setting(
        8, "parts that are on the wire at the same moment, all streams together; bounds memory",
        small="fast links stay idle", big="memory, and more to send again after a crash", ge=1, le=256,
    )  # fmt: skip
    part_transfer: PartTransfer = setting(
        PartTransfer.AUTO,
        "who sends the bytes: auto, which is the kernel (sendfile) over plain HTTP, or client, the "
        "S3 client library",
    )
