"""The settings: validated, frozen. Every field becomes a line of example.env. They are read by
`config_reading`."""

import re
import socket
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, Self, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cefmp4.config import values
from cefmp4.model.names import DEFAULT_KEY_TEMPLATE, KeyConflict
from cefmp4.model.part import GIB, MAX_PART_BYTES, MIB, MIN_PART_BYTES, PartSizing
from cefmp4.model.rendition import RUNGS, CodecChoice

DEFAULT_GLOBS = (
    "*.mp4", "*.m4v", "*.mov", "*.m4a", "*.m4s", "*.mkv", "*.webm", "*.ts", "*.mts", "*.m2ts",
    "*.flv", "*.avi", "*.mxf", "*.mpg", "*.3gp", "*.wav", "*.flac", "*.mp3",
)  # fmt: skip

MOST_BYTES = 1024 * 1024 * GIB  # more than any machine has, and still a limit that the kernel takes


class AppEnv(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class WatchMode(StrEnum):
    AUTO = "auto"
    EVENTS = "events"
    POLLING = "polling"


class PartTransfer(StrEnum):
    AUTO = "auto"
    CLIENT = "client"


def setting(default: Any, about: str, *, small: str = "", big: str = "", **limits: Any) -> Any:
    """A field with what example.env says of it: its meaning and unit, and what breaks when."""
    return Field(
        default, description=about, json_schema_extra={"small": small, "big": big}, **limits
    )


class GpuUse(StrEnum):
    AUTO = "auto"
    OFF = "off"


# What the type and the limits do not say; each raises ValueError or returns what is meant.
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "log_level": values.log_level,
    "watch_dir_id": values.folder_id,
    "watch_filter_globs": values.globs,
    "after_upload": values.after_upload,
    "redis_host": values.redis_host,
    "s3_endpoint_url": values.endpoint,
    "http_allowed_hosts": values.host_names,
    "s3_bucket_name": values.bucket,
    "s3_region_name": values.region,
    "s3_key_template": values.key_template,
    "handover_jobs": values.job_kinds,
    "hls_rungs": values.rungs,
}


class Settings(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    _spelled: dict[str, str] = PrivateAttr(default_factory=dict)

    app_env: AppEnv = setting(
        AppEnv.DEVELOPMENT,
        "what the log is for: development, with lines for people, or production, with one JSON object a line",
    )
    log_level: str = setting("INFO", "DEBUG, INFO, WARNING or ERROR")
    state_dir: Path = setting(
        Path(".cefmp4"), "folder for what `cefmp4 up` keeps: embedded servers, their data and keys"
    )
    instance_id: str = setting("", "name of this instance in leases and metadata; empty: host name")
    startup_timeout_seconds: float = setting(
        30, "seconds to wait for Redis and S3 at start before exit code 3",
        small="a server that starts beside us is given up", big="a wrong address is noticed late", ge=0, le=3600,
    )  # fmt: skip
    shutdown_timeout_seconds: float = setting(
        20, "seconds that a stop may take; parts in flight get nearly all of it",
        small="parts are sent again after the restart", big="a stop takes that long", ge=0, le=3600,
    )  # fmt: skip

    watch_dir: Path = setting(Path("local_watch_dir"), "the folder to watch, with all below it")
    watch_dir_id: str = setting(
        "", "name of the watched folder that no other has, alike for all instances that share it; "
        "empty: a mark that is left in the folder; needed where the folder can only be read",
    )  # fmt: skip
    watch_filter_globs: tuple[str, ...] = setting(
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
    after_upload: str = setting(
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

    s3_endpoint_url: str | None = setting(
        None, "address of the S3 server; empty: AWS (with `cefmp4 up`: an embedded server)"
    )
    s3_access_key_id: str | None = setting(
        None, "access key; empty: the usual AWS credential chain"
    )
    s3_secret_access_key: SecretStr | None = setting(None, "secret key")
    s3_bucket_name: str = setting("cefmp4", "the bucket; it must exist")
    s3_region_name: str = setting("us-east-1", "region of the bucket")
    s3_key_template: str = setting(
        DEFAULT_KEY_TEMPLATE,
        "object keys from {stream_id} {filename} {relpath} {stem} {date:%Y/%m/%d} {host}",
    )
    s3_key_conflict: KeyConflict = setting(
        KeyConflict.SUFFIX,
        "a recording whose key is taken: suffix stores it with ~<stream id> before the suffix of "
        "the key, fail stores nothing and its stream fails",
    )
    orphan_grace_seconds: float = setting(
        86400, "seconds an open upload under our prefix may lie unclaimed before it is aborted",
        small="uploads of another installation in the same bucket are at risk", big="forgotten parts cost money",
        ge=60,
    )  # fmt: skip

    redis_url: SecretStr | None = setting(
        None, "address of Redis (with `cefmp4 up` empty: an embedded Valkey)"
    )
    redis_host: str | None = setting(None, "older spelling; use REDIS_URL")
    redis_port: int = setting(6379, "older spelling; use REDIS_URL", ge=1, le=65535)
    lease_seconds: float = setting(
        10, "seconds after which the streams of a dead instance pass to another",
        small="a short stall loses streams to another instance", big="takeover waits that long", ge=2, le=600,
    )  # fmt: skip

    handover_jobs: tuple[str, ...] = setting(
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
    hls_rungs: tuple[int, ...] = setting(
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

    prom_port: int = setting(
        8000, "port of metrics, health, API, page and webhook; 0: any free one", ge=0, le=65535
    )
    worker_port: int = setting(
        8001, "port of metrics and health of `cefmp4 worker`, one for each worker of a host; 0: any free one",
        ge=0, le=65535,
    )  # fmt: skip
    http_host: str = setting(
        "127.0.0.1",
        "address these ports bind to; bound wider than loopback, all but health and metrics needs API_TOKEN",
    )
    publish_host: str = setting(
        "",
        "address at which others reach these ports where a container publishes them, as docker "
        "compose does; it counts instead of HTTP_HOST in what needs API_TOKEN; empty: HTTP_HOST",
    )
    http_allowed_hosts: tuple[str, ...] = setting(
        (),
        "host names by which browsers may ask, with commas between them, such as those of a proxy in "
        "front; localhost, HTTP_HOST and, bound wider, every IP address are allowed anyway",
    )
    api_token: SecretStr | None = setting(
        None, "token of at least 16 characters that the page asks for, and that requests carry as "
        "'Authorization: Bearer'; on loopback only those that change state need it",
    )  # fmt: skip
    webhook_secret: SecretStr | None = setting(
        None, "secret of at least 16 characters that signs POST /jobs on PROM_PORT (there is no WEBHOOK_PORT); "
        "empty: no jobs from there",
    )  # fmt: skip
    metrics_per_stream: bool = setting(
        True, "label the video_* metrics with stream_id; a series ends soon after its stream"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: object, info: ValidationInfo) -> object:
        """Enums in any case; lists with commas or in JSON; folders below `~`."""
        kind: Any = cls.model_fields[info.field_name or ""].annotation
        if not isinstance(value, str):
            return value
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return values.any_case(kind, value)
        if kind is Path:
            return values.folder(value)
        return values.read_list(value) if get_origin(kind) is tuple else value

    @field_validator(*_CHECKS)
    @classmethod
    def _usable(cls, value: Any, info: ValidationInfo) -> Any:
        return None if value is None else _CHECKS[info.field_name or ""](value)

    @field_validator("redis_url", "webhook_secret", "api_token")
    @classmethod
    def _usable_secret(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        check = values.check_redis_url if info.field_name == "redis_url" else values.check_secret
        if value is not None:
            check(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key):
            raise ValueError(
                "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together: set both or none"
            )
        return self

    @property
    def reached_at(self) -> str:
        """The widest address at which others reach the HTTP ports."""
        return self.publish_host or self.http_host

    @property
    def host(self) -> str:
        return self.instance_id or socket.gethostname()

    def with_servers(self, places: "ServerPlaces") -> Self:
        """These settings, with embedded servers where they name none."""
        changes: dict[str, Any] = {}
        if self.redis_address is None and places.redis_url:
            changes["redis_url"] = SecretStr(places.redis_url)
        if self.s3_endpoint_url is None and places.s3_endpoint_url:
            changes["s3_endpoint_url"] = places.s3_endpoint_url
            changes["s3_access_key_id"] = places.s3_access_key_id
            changes["s3_secret_access_key"] = SecretStr(places.s3_secret_access_key or "")
        return self.model_copy(update=changes)

    @property
    def redis_address(self) -> str | None:
        if self.redis_url:
            return self.redis_url.get_secret_value()
        if not self.redis_host:
            return None
        is_bare_v6 = ":" in self.redis_host and not self.redis_host.startswith("[")
        host = f"[{self.redis_host}]" if is_bare_v6 else self.redis_host
        return f"redis://{host}:{self.redis_port}/0"

    def spelled(self, names: dict[str, str]) -> Self:
        """Remembers which older names were written instead of ours."""
        self._spelled.update(names)
        return self

    def as_spelled(self, text: str) -> str:
        """`text` with the settings called as they were written."""
        for ours, written in self._spelled.items():
            text = re.sub(rf"\b{ours}\b", written, text)
        return text


class ServerPlaces(Protocol):
    """Where embedded servers are; None where the settings name a server themselves."""

    @property
    def redis_url(self) -> str | None: ...
    @property
    def s3_endpoint_url(self) -> str | None: ...
    @property
    def s3_access_key_id(self) -> str | None: ...
    @property
    def s3_secret_access_key(self) -> str | None: ...
