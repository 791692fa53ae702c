"""Every metric, by name. Nothing else in the product names a metric. Each series whose labels can
be known is there from the start, at 0: a scraper sees only what a counter grows by.
docs/metrics.md says what each is for."""

import os
from collections.abc import Iterable
from itertools import product
from time import monotonic
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from cefmp4 import __version__
from cefmp4.model.job import OFFERED_KINDS, FailReason, JobKind, SlotKind
from cefmp4.model.stream import Stream
from cefmp4.stream_series import StreamCounter, StreamSeries

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
Info("cefmp4_build", "Which version runs", registry=REGISTRY).info({"version": __version__})

Family = TypeVar("Family", Counter, Gauge, Histogram)


def _born(family: Family, *values: Iterable[str]) -> Family:
    """With a series for each of the label values."""
    for labels in product(*values):
        family.labels(*labels)
    return family


SERVERS = ("redis", "s3")
_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_JOB_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600)

# What may fail: how a stream ends badly, what it must do again, and each step that is tried again
# until a server does it.
FAILED_OPERATIONS = (
    *("upload_gone", "read", "proof", "failed", "truncated", "missing", "metadata", "crash"),
    *("orphan_abort", "upload_start", "upload_listing", "upload_abort", "part_listing"),
    *("part_upload", "part_copy", "object_upload", "completion", "object_check", "key_lookup"),
    *("metadata_upload", "metadata_reading", "reading", "survey_of_the_store"),
    *("checkpoint", "claim", "stream_lookup", "part_lookup", "loading_of_checkpoints"),
    *("accept_result", "read_job", "commit_job", "fail_job"),
    *("move_job", "release_job", "requeue_job", "hand-over"),
)

# Why a request or a connection over HTTP was refused or cut off.
HTTP_REFUSALS = ("malformed", "host", "cross_site", "token", "full", "slow", "descriptors")

# The path of a byte.

parts_uploaded = StreamCounter("video_chunks_uploaded_total", "Parts stored")
bytes_uploaded = StreamCounter("video_bytes_uploaded_total", "Bytes stored")
failed_operations = StreamCounter(
    "video_failed_operations_total",
    "Operations that failed, by kind",
    label="operation_type",
    values=FAILED_OPERATIONS,
)
for _counter in (parts_uploaded, bytes_uploaded, failed_operations):
    REGISTRY.register(_counter)
streams = StreamSeries(always=(parts_uploaded, bytes_uploaded), others=(failed_operations,))

stream_duration = Histogram(
    "video_stream_duration_seconds",
    "From first sight of a stream to its proven object",
    buckets=_JOB_SECONDS,
    registry=REGISTRY,
)
processing_time = Histogram(
    "video_processing_time_seconds",
    "From the writer's close to the metadata document",
    buckets=_SECONDS,
    registry=REGISTRY,
)
active_streams = Gauge(
    "active_streams_gauge", "Streams between first sight and their end", registry=REGISTRY
)
streams_completed = Counter(
    "streams_completed_total", "Streams whose object is proven", registry=REGISTRY
)
streams_failed = Counter(
    "streams_failed_total", "Streams that ended without an object", registry=REGISTRY
)

bytes_behind = Gauge(
    "cefmp4_bytes_behind", "Bytes on disk that are not stored yet, all streams", registry=REGISTRY
)
seconds_behind = Gauge(
    "cefmp4_seconds_behind",
    "Age of the oldest byte that is on disk and not stored yet",
    registry=REGISTRY,
)
close_to_object = Histogram(
    "cefmp4_close_to_object_seconds",
    "From the writer's close to the proven object, settle time included",
    buckets=_SECONDS,
    registry=REGISTRY,
)
part_latency = Histogram(
    "cefmp4_part_upload_seconds", "Time one part took", buckets=_SECONDS, registry=REGISTRY
)
parts_resent = Counter(
    "cefmp4_parts_resent_total", "Parts the writer changed after they were sent", registry=REGISTRY
)
parts_copied = Counter(
    "cefmp4_parts_copied_total", "Parts taken from the former generation", registry=REGISTRY
)
part_slots = Gauge("cefmp4_part_slots", "Parts that may be on the wire at once", registry=REGISTRY)
slots_in_use = Gauge("cefmp4_part_slots_in_use", "Parts on the wire", registry=REGISTRY)
open_uploads = Gauge(
    "cefmp4_open_multipart_uploads", "Multipart uploads we hold open", registry=REGISTRY
)
orphan_uploads = Gauge(
    "cefmp4_orphan_multipart_uploads", "Open uploads that no stream claims", registry=REGISTRY
)
events_dropped = Counter(
    "cefmp4_events_dropped_total", "Times the kernel lost events of the folder", registry=REGISTRY
)
RESCAN_CAUSES = ("start", "interval", "overflow", "folder_moved", "watch_limit", "rearmed")
rescans = _born(
    Counter("cefmp4_rescans_total", "Full looks at the folder", ["cause"], registry=REGISTRY),
    RESCAN_CAUSES,
)
folders_left_out = _born(
    Gauge(
        "cefmp4_folders_left_out",
        "Folders whose recordings are not uploaded",
        ["cause"],
        registry=REGISTRY,
    ),
    ("depth", "count", "unreadable"),
)
KEY_OUTCOMES = ("suffixed", "failed")
key_conflicts = _born(
    Counter(
        "cefmp4_key_conflicts_total",
        "Keys that were another recording's, by what was done: suffixed or failed",
        ["outcome"],
        registry=REGISTRY,
    ),
    KEY_OUTCOMES,
)
STALE_OUTCOMES = ("finalize", "resume", "truncated", "missing", "overwritten")
stale_outcomes = _born(
    Counter(
        "cefmp4_stale_streams_total",
        "Stale streams, by what was done",
        ["outcome"],
        registry=REGISTRY,
    ),
    STALE_OUTCOMES,
)
watch_folder_up = Gauge(
    "cefmp4_watch_folder_up", "1 while the watched folder is there, else 0", registry=REGISTRY
)
leases_lost = Counter(
    "cefmp4_leases_lost_total", "Streams another instance took over", registry=REGISTRY
)

# What the product stands on.

is_live = Gauge("cefmp4_live", "1 while /livez says so, else 0", registry=REGISTRY)
is_ready = Gauge("cefmp4_ready", "1 while /readyz says so, else 0", registry=REGISTRY)
server_up = Gauge(
    "cefmp4_server_up", "1 while the server answers, else 0", ["server"], registry=REGISTRY
)
server_full = Gauge(
    "cefmp4_server_full",
    "1 while the server stores nothing because its disk is full, else 0",
    ["server"],
    registry=REGISTRY,
)
retries = _born(
    Counter("cefmp4_retries_total", "Requests tried again", ["server"], registry=REGISTRY), SERVERS
)
disk_free = Gauge(
    "cefmp4_disk_free_bytes",
    "Room that is left where a folder is",
    ["folder"],
    registry=REGISTRY,
)
disk_size = Gauge(
    "cefmp4_disk_size_bytes", "Size of the disk a folder is on", ["folder"], registry=REGISTRY
)

# Jobs.

http_refused = _born(
    Counter(
        "cefmp4_http_refused_total",
        "Requests and connections over HTTP that were refused or cut off",
        ["reason"],
        registry=REGISTRY,
    ),
    HTTP_REFUSALS,
)
job_queue_depth = Gauge(
    "cefmp4_job_queue_depth", "Jobs that wait, back-off included", ["kind"], registry=REGISTRY
)
job_queue_age = Gauge(
    "cefmp4_job_queue_age_seconds",
    "How long the longest waiting job could have been running",
    ["kind"],
    registry=REGISTRY,
)
job_workers = Gauge("cefmp4_job_workers", "Workers that live", ["kind"], registry=REGISTRY)
job_duration = _born(
    Histogram(
        "cefmp4_job_duration_seconds",
        "Time one attempt took that completed its job",
        ["kind"],
        buckets=_JOB_SECONDS,
        registry=REGISTRY,
    ),
    OFFERED_KINDS,
)
JOB_OUTCOMES = (
    *("complete", *FailReason, "retried", "released", "moved"),
    *("no_room", "no_program", "server_away", "fenced"),
)
job_results = _born(
    Counter(
        "cefmp4_job_results_total",
        "Attempts that ended, by how",
        ["kind", "outcome"],
        registry=REGISTRY,
    ),
    OFFERED_KINDS,
    JOB_OUTCOMES,
)
job_slots = _born(
    Gauge("cefmp4_job_slots", "Slots for jobs", ["slot"], registry=REGISTRY), SlotKind
)
job_slots_in_use = _born(
    Gauge("cefmp4_job_slots_in_use", "Slots that jobs hold", ["slot"], registry=REGISTRY), SlotKind
)
UNREADABLE = ("ticket", "queue", "job", "index", "stream")
unreadable_records = _born(
    Counter(
        "cefmp4_unreadable_records_total",
        "What lay in Redis, was not ours to read, and was dropped or set aside",
        ["what"],
        registry=REGISTRY,
    ),
    UNREADABLE,
)
encode_speed = Gauge(
    "cefmp4_encode_speed_ratio",
    "Seconds of media per second, as the latest encode reported",
    ["slot"],
    registry=REGISTRY,
)
encode_fps = Gauge(
    "cefmp4_encode_frames_per_second",
    "Frames per second, as the latest encode reported",
    ["slot"],
    registry=REGISTRY,
)
ENCODERS_PASSED_OVER = ("hevc_nvenc", "h264_nvenc", "nvenc", "ffmpeg")
FALLBACK_REASONS = (
    "busy", "no_driver", "old_driver", "no_device", "no_encoder", "no_program", "other",
)  # fmt: skip
encoder_fallbacks = _born(
    Counter(
        "cefmp4_encoder_fallbacks_total",
        "Times an encoder was passed over, at the start of the worker or for a job with a GPU slot",
        ["encoder", "reason"],
        registry=REGISTRY,
    ),
    ENCODERS_PASSED_OVER,
    FALLBACK_REASONS,
)


# What is told here, and becomes more than one metric.


def is_server_down(server: str) -> bool:
    """Whether its last request failed; a server nobody asked yet is not down."""
    return (server,) in server_up._metrics and server_up.labels(server)._value.get() == 0


def queues_measured(kind: JobKind, *, depth: int, age_s: float, workers: int) -> None:
    job_queue_depth.labels(kind).set(depth)
    job_queue_age.labels(kind).set(age_s)
    job_workers.labels(kind).set(workers)


def queues_unknown() -> None:
    """Redis is away: no figure is better than one that looks as if nothing waited."""
    for gauge in (job_queue_depth, job_queue_age, job_workers):
        gauge.clear()


disk_folders: dict[str, str | os.PathLike[str]] = {}  # what `folder` stands for


def measure_disks() -> None:
    """Blocking, on a dead network mount for as long as that is dead."""
    for folder, path in disk_folders.items():
        _measure_disk(folder, path)


def _measure_disk(folder: str, path: str | os.PathLike[str]) -> None:
    try:
        found = os.statvfs(path)
    except OSError:
        for gauge in (disk_free, disk_size):
            if (folder,) in gauge._metrics:
                gauge.remove(folder)
        return
    disk_free.labels(folder).set(found.f_bavail * found.f_frsize)
    disk_size.labels(folder).set(found.f_blocks * found.f_frsize)


FULL_MEMORY_S = 30.0  # whoever was refused asks again within seconds; if not, nobody knows
_refused_at: dict[str, float] = {}
server_full.labels("s3").set_function(lambda: float(is_server_full("s3")))


def note_full(server: str) -> None:
    _refused_at[server] = monotonic()


def note_room(server: str) -> None:
    _refused_at.pop(server, None)


def is_server_full(server: str) -> bool:
    refused_at = _refused_at.get(server)
    return refused_at is not None and monotonic() - refused_at < FULL_MEMORY_S


def count_part(stream_id: str, size: int, *, is_copy: bool) -> None:
    parts_uploaded.inc(stream_id=stream_id)
    bytes_uploaded.inc(size, stream_id=stream_id)
    if is_copy:
        parts_copied.inc()


def count_failure(operation: str, stream_id: str = "") -> None:
    if streams.lives(stream_id):
        failed_operations.begin(stream_id, operation)
    failed_operations.inc(value=operation, stream_id=stream_id)


def stream_stored(stream: Stream) -> None:
    streams_completed.inc()
    stream_duration.observe(max(0.0, stream.completed_at - stream.started_at))
    if stream.closed_at:
        close_to_object.observe(max(0.0, stream.completed_at - stream.closed_at))


def stream_described(stream: Stream, now: float) -> None:
    if stream.closed_at:
        processing_time.observe(max(0.0, now - stream.closed_at))
