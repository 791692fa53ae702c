"""The settings: validated, frozen. Every field becomes a line of example.env. They are read by
`config_reading`."""

import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cefmp4.model.names import DEFAULT_KEY_TEMPLATE, check_key_template
from cefmp4.model.part import MAX_PART_BYTES, MIB, MIN_PART_BYTES, PartSizing
from cefmp4.model.rendition import HIGHEST_RUNG, LOWEST_RUNG, RUNGS, CodecChoice

DEFAULT_GLOBS = (
    "*.mp4", "*.m4v", "*.mov", "*.m4a", "*.m4s", "*.mkv", "*.webm", "*.ts", "*.mts", "*.m2ts",
    "*.flv", "*.avi", "*.mxf", "*.mpg", "*.3gp", "*.wav", "*.flac", "*.mp3",
)  # fmt: skip


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


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True, populate_by_name=True
    )

    app_env: AppEnv = setting(
        AppEnv.DEVELOPMENT, "development: log lines for people; production: one JSON object a line"
    )
    log_level: str = setting(
        "INFO",
        "DEBUG, INFO, WARNING or ERROR",
        validation_alias=AliasChoices("LOG_LEVEL", "PYTHON_LOG_LEVEL"),
    )
    state_dir: Path = setting(
        Path(".cefmp4"), "folder for what `cefmp4 up` keeps: embedded servers, their data and keys"
    )
    instance_id: str = setting("", "name of this instance in leases and metadata; empty: host name")
    startup_timeout_seconds: float = setting(
        30, "seconds to wait for Redis and S3 at start before exit code 3",
        small="a server that starts beside us is given up", big="a wrong address is noticed late", ge=0, le=3600,
    )  # fmt: skip
    shutdown_timeout_seconds: float = setting(
        20, "seconds that parts in flight get on SIGTERM",
        small="parts are sent again after the restart", big="a stop takes that long", ge=0, le=3600,
    )  # fmt: skip

    watch_dir: Path = setting(Path("local_watch_dir"), "the folder to watch, with all below it")
    watch_filter_globs: Annotated[tuple[str, ...], NoDecode] = setting(
        DEFAULT_GLOBS, "comma-separated patterns of file names (or paths) to upload"
    )
    watch_mode: WatchMode = setting(
        WatchMode.AUTO,
        "events (inotify), polling (NFS, SMB, some container mounts), or auto by file system",
    )
    reconcile_seconds: float = setting(
        60, "seconds between two full looks at the folder, which find what events missed",
        small="CPU time in large folders", big="a missed file waits that long", ge=1, le=86400,
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
    after_upload: str = setting(
        "keep", "keep, delete, or move:DIR, once the object is proven identical"
    )

    chunk_size_bytes: int = setting(
        10 * MIB, "bytes of the first parts; later parts grow with the file",
        small="more requests", big="bytes leave later", ge=MIN_PART_BYTES, le=MAX_PART_BYTES,
    )  # fmt: skip
    part_sizing: PartSizing = setting(
        PartSizing.GROW, "grow, or equal for stores that demand parts of one size (Cloudflare R2)"
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
        "auto: kernel sendfile over plain HTTP; client: the S3 client library sends every byte",
    )

    s3_endpoint_url: str | None = setting(
        None, "address of the S3 server; empty: AWS (with `cefmp4 up`: an embedded server)",
        validation_alias=AliasChoices("S3_ENDPOINT_URL", "S3_ENDPOINT"),
    )  # fmt: skip
    s3_access_key_id: str | None = setting(
        None, "access key; empty: the usual AWS credential chain",
        validation_alias=AliasChoices("S3_ACCESS_KEY_ID", "S3_ACCESS_KEY"),
    )  # fmt: skip
    s3_secret_access_key: SecretStr | None = setting(
        None, "secret key", validation_alias=AliasChoices("S3_SECRET_ACCESS_KEY", "S3_SECRET_KEY")
    )
    s3_bucket_name: str = setting(
        "cefmp4", "the bucket; it must exist",
        validation_alias=AliasChoices("S3_BUCKET_NAME", "S3_BUCKET"), min_length=3, max_length=63,
    )  # fmt: skip
    s3_region_name: str = setting("us-east-1", "region of the bucket")
    s3_key_template: str = setting(
        DEFAULT_KEY_TEMPLATE,
        "object keys from {stream_id} {filename} {relpath} {stem} {date:%Y/%m/%d} {host}",
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

    handover_jobs: Annotated[tuple[str, ...], NoDecode] = setting(
        ("hls",), "comma-separated kinds of jobs made of each playable recording (hls), or none"
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
        small="a full disk stops the embedded servers, too", big="jobs wait on a disk that would do", ge=0,
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
        CodecChoice.BOTH, "hevc+h264, hevc or h264; many browsers cannot play HEVC"
    )
    hls_rungs: Annotated[tuple[int, ...], NoDecode] = setting(
        RUNGS,
        "comma-separated heights of the ladder, counted on the short side, none above the source; "
        "each is encoded and stored, and where there are few, slow networks stall",
    )
    hls_remux: bool = setting(
        True,
        "copy recordings that already fit HLS; false: encode each, which costs hours of CPU time",
    )
    hls_thumbnails: bool = setting(
        True, "make a poster and thumbnails for the seek bar; false: saves some decoding"
    )
    hls_gpu: GpuUse = setting(
        GpuUse.AUTO, "auto: encode on the GPU where it works; off: only on the CPU"
    )
    ffmpeg_path: str = setting("ffmpeg", "the ffmpeg program")
    ffmpeg_memory_bytes: int = setting(
        0, "bytes of memory one ffmpeg may use; 0: three quarters of what this machine or container has",
        small="large pictures are not encoded", big="a hostile file takes memory from everything else", ge=0,
    )  # fmt: skip

    ffprobe_path: str = setting("ffprobe", "the ffprobe program")
    ffprobe_timeout_seconds: float = setting(
        30, "seconds one ffprobe run may take",
        small="large files are not described", big="a hostile file holds a slot that long", gt=0, le=3600,
    )  # fmt: skip
    ffprobe_memory_bytes: int = setting(
        1024 * MIB, "bytes of address space one ffprobe run may use",
        small="large files are not described", big="a hostile file takes that much", ge=512 * MIB,
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
        "address these ports bind to; wider than loopback needs API_TOKEN to change state",
    )
    api_token: SecretStr | None = setting(None, "token that requests which change state must carry")
    webhook_secret: SecretStr | None = setting(
        None, "secret of at least 16 characters that signs POST /jobs on PROM_PORT (there is no WEBHOOK_PORT); "
        "empty: no jobs from there",
    )  # fmt: skip
    metrics_per_stream: bool = setting(
        True, "label the video_* metrics with stream_id; a series ends soon after its stream"
    )

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
            raise ValueError("allowed are DEBUG, INFO, WARNING, ERROR, CRITICAL")
        return value.upper()

    @field_validator("watch_filter_globs", mode="before")
    @classmethod
    def _split_globs(cls, value: object) -> object:
        if isinstance(value, str):
            value = tuple(glob.strip() for glob in value.split(",") if glob.strip())
        if not value:
            raise ValueError("it needs at least one pattern, such as *.mp4")
        return value

    @field_validator("handover_jobs", mode="before")
    @classmethod
    def _known_jobs(cls, value: object) -> object:
        if isinstance(value, str):
            value = tuple(word for word in value.replace(" ", "").split(",") if word)
        if value == ("none",):
            return ()
        if not isinstance(value, tuple) or set(value) - {"hls"}:
            raise ValueError("allowed are hls, none")
        return value

    @field_validator("hls_rungs", mode="before")
    @classmethod
    def _split_rungs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        words = [word for word in value.replace(" ", "").split(",") if word]
        return tuple(int(word) if word.isdecimal() else 0 for word in words)

    @field_validator("hls_rungs")
    @classmethod
    def _falling_rungs(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        is_allowed = all(LOWEST_RUNG <= rung <= HIGHEST_RUNG and rung % 2 == 0 for rung in value)
        if not (value and is_allowed):
            limits = f"from {LOWEST_RUNG} to {HIGHEST_RUNG}"
            raise ValueError(f"it must be even numbers {limits}, such as 1080,720,360")
        return tuple(sorted(set(value), reverse=True))

    @field_validator("s3_key_template")
    @classmethod
    def _usable_template(cls, value: str) -> str:
        check_key_template(value)
        return value

    @field_validator("s3_endpoint_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("it must start with http:// or https://")
        return value.rstrip("/") if value else None

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        schemes = ("redis://", "rediss://", "unix://")
        if value and not value.get_secret_value().startswith(schemes):
            raise ValueError(f"it must start with one of {', '.join(schemes)}")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr | None) -> SecretStr | None:
        if value and len(value.get_secret_value()) < 16:
            raise ValueError("it must have at least 16 characters")
        return value

    @field_validator("after_upload")
    @classmethod
    def _known_action(cls, value: str) -> str:
        if value not in {"keep", "delete"} and not value.startswith("move:/"):
            raise ValueError("allowed are keep, delete, move:/an/absolute/folder")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key):
            raise ValueError(
                "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together: set both or none"
            )
        return self

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
        return f"redis://{self.redis_host}:{self.redis_port}/0" if self.redis_host else None


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
