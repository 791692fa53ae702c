"""Every metric, by name. Nothing else in the product names a metric. Each series whose labels can
be known is there from the start, at 0: a scraper sees only what a counter grows by.
docs/metrics.md says what each is for."""

import os
from collections.abc import Iterable, Sequence
from itertools import product
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
from cefmp4.model.callback import Delivery, MessageType
from cefmp4.model.job import OFFERED_KINDS, FailReason, JobKind, SlotKind
from cefmp4.model.stream import Stream
from cefmp4.stream_series import StreamCounter, StreamSeries

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
Info("cefmp4_build", "Which version runs", registry=REGISTRY).info({"version": __version__})

Family = TypeVar("Family", Counter, Gauge, Histogram)


def _born(family: Family, labels: dict[str, Iterable[str]]) -> Family:
    """With a series for each of the values that its labels are known to have."""
    if labels:
        for values in product(*labels.values()):
            family.labels(*values)
    return family


def _counter(name: str, about: str, **labels: Iterable[str]) -> Counter:
    return _born(Counter(name, about, tuple(labels), registry=REGISTRY), labels)


def _gauge(name: str, about: str, **labels: Iterable[str]) -> Gauge:
    return _born(Gauge(name, about, tuple(labels), registry=REGISTRY), labels)


def _histogram(
    name: str, about: str, buckets: Sequence[float], **labels: Iterable[str]
) -> Histogram:
    family = Histogram(name, about, tuple(labels), buckets=buckets, registry=REGISTRY)
    return _born(family, labels)


_ANY = ()  # of a label whose values are not known before
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
    "hand-over",
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
for _of_streams in (parts_uploaded, bytes_uploaded, failed_operations):
    REGISTRY.register(_of_streams)
streams = StreamSeries(always=(parts_uploaded, bytes_uploaded), others=(failed_operations,))

stream_duration = _histogram(
    "video_stream_duration_seconds",
    "From first sight of a stream to its proven object",
    _JOB_SECONDS,
)
processing_time = _histogram(
    "video_processing_time_seconds", "From the writer's close to the metadata document", _SECONDS
)
active_streams = _gauge("active_streams_gauge", "Streams between first sight and their end")
streams_completed = _counter("streams_completed_total", "Streams whose object is proven")
streams_failed = _counter("streams_failed_total", "Streams that ended without an object")

bytes_behind = _gauge("cefmp4_bytes_behind", "Bytes on disk that are not stored yet, all streams")
seconds_behind = _gauge(
    "cefmp4_seconds_behind", "Age of the oldest byte that is on disk and not stored yet"
)
close_to_object = _histogram(
    "cefmp4_close_to_object_seconds",
    "From the writer's close to the proven object, settle time included",
    _SECONDS,
)
part_latency = _histogram("cefmp4_part_upload_seconds", "Time one part took", _SECONDS)
parts_resent = _counter(
    "cefmp4_parts_resent_total", "Parts the writer changed after they were sent"
)
parts_copied = _counter("cefmp4_parts_copied_total", "Parts taken from the former generation")
part_slots = _gauge("cefmp4_part_slots", "Parts that may be on the wire at once")
slots_in_use = _gauge("cefmp4_part_slots_in_use", "Parts on the wire")
open_uploads = _gauge("cefmp4_open_multipart_uploads", "Multipart uploads we hold open")
orphan_uploads = _gauge("cefmp4_orphan_multipart_uploads", "Open uploads that no stream claims")
events_dropped = _counter(
    "cefmp4_events_dropped_total", "Times the kernel lost events of the folder"
)
RESCAN_CAUSES = ("start", "interval", "overflow", "folder_moved", "watch_limit", "rearmed")
rescans = _counter("cefmp4_rescans_total", "Full looks at the folder", cause=RESCAN_CAUSES)
folders_left_out = _gauge(
    "cefmp4_folders_left_out",
    "Folders whose recordings are not uploaded",
    cause=("depth", "count", "unreadable"),
)
KEY_OUTCOMES = ("suffixed", "failed")
key_conflicts = _counter(
    "cefmp4_key_conflicts_total",
    "Keys that were another recording's, by what was done: suffixed or failed",
    outcome=KEY_OUTCOMES,
)
STALE_OUTCOMES = ("finalize", "resume", "truncated", "missing", "overwritten")
stale_outcomes = _counter(
    "cefmp4_stale_streams_total", "Stale streams, by what was done", outcome=STALE_OUTCOMES
)
watch_folder_up = _gauge("cefmp4_watch_folder_up", "1 while the watched folder is there, else 0")
leases_lost = _counter("cefmp4_leases_lost_total", "Streams another instance took over")

# What the product stands on.

is_live = _gauge("cefmp4_live", "1 while /livez says so, else 0")
is_ready = _gauge("cefmp4_ready", "1 while /readyz says so, else 0")
server_up = _gauge("cefmp4_server_up", "1 while the server answers, else 0", server=_ANY)
server_full = _gauge(
    "cefmp4_server_full",
    "1 while the server stores nothing because its disk is full, else 0",
    server=_ANY,
)
retries = _counter("cefmp4_retries_total", "Requests tried again", server=SERVERS)
disk_free = _gauge("cefmp4_disk_free_bytes", "Room that is left where a folder is", folder=_ANY)
disk_size = _gauge("cefmp4_disk_size_bytes", "Size of the disk a folder is on", folder=_ANY)

http_refused = _counter(
    "cefmp4_http_refused_total",
    "Requests and connections over HTTP that were refused or cut off",
    reason=HTTP_REFUSALS,
)

# Jobs.

job_queue_depth = _gauge("cefmp4_job_queue_depth", "Jobs that wait, back-off included", kind=_ANY)
job_queue_age = _gauge(
    "cefmp4_job_queue_age_seconds",
    "How long the longest waiting job could have been running",
    kind=_ANY,
)
job_workers = _gauge("cefmp4_job_workers", "Workers that live", kind=_ANY)
job_duration = _histogram(
    "cefmp4_job_duration_seconds",
    "Time the accepted attempt of a job took, from its beginning until it was published",
    _JOB_SECONDS,
    kind=OFFERED_KINDS,
)
job_step_duration = _histogram(
    "cefmp4_job_step_duration_seconds",
    "Time one step of a job took, by how it ended",
    _JOB_SECONDS,
    kind=_ANY,
    step=_ANY,
    outcome=_ANY,
)
JOB_OUTCOMES = (
    *("complete", *FailReason, "retried", "released"),
    *("no_room", "no_program", "server_away", "fenced"),
)
job_results = _counter(
    "cefmp4_job_results_total",
    "Attempts that ended, by how",
    kind=OFFERED_KINDS,
    outcome=JOB_OUTCOMES,
)
SOURCE_OUTCOMES = ("begun", "known", "refused", "complete", "failed")
source_jobs = _counter(
    "cefmp4_source_jobs_total",
    "Jobs of a source, by what became of them here",
    source=_ANY,
    outcome=SOURCE_OUTCOMES,
)
source_waiting = _gauge(
    "cefmp4_source_waiting", "Jobs that a source has and nobody claimed", source=_ANY
)
callbacks = _counter(
    "cefmp4_callbacks_total",
    "Tries to call back at WEBHOOK_URL, by what became of them",
    event=MessageType,
    outcome=Delivery,
)
job_slots = _gauge("cefmp4_job_slots", "Slots for jobs", slot=SlotKind)
job_slots_in_use = _gauge("cefmp4_job_slots_in_use", "Slots that jobs hold", slot=SlotKind)
UNREADABLE = ("index", "stream")
unreadable_records = _counter(
    "cefmp4_unreadable_records_total",
    "What lay in Redis, was not ours to read, and was dropped or set aside",
    what=UNREADABLE,
)
encode_speed = _gauge(
    "cefmp4_encode_speed_ratio",
    "Seconds of media per second, as the latest encode reported",
    slot=_ANY,
)
encode_fps = _gauge(
    "cefmp4_encode_frames_per_second",
    "Frames per second, as the latest encode reported",
    slot=_ANY,
)
ENCODERS_PASSED_OVER = ("hevc_nvenc", "h264_nvenc", "nvenc", "ffmpeg")
FALLBACK_REASONS = (
    "busy", "no_driver", "old_driver", "no_device", "no_encoder", "no_program", "other",
)  # fmt: skip
encoder_fallbacks = _counter(
    "cefmp4_encoder_fallbacks_total",
    "Times an encoder was passed over, at the start of the worker or for a job with a GPU slot",
    encoder=ENCODERS_PASSED_OVER,
    reason=FALLBACK_REASONS,
)


# What is told here, and becomes more than one metric.


def queues_measured(kind: JobKind, *, depth: int, age_s: float, workers: int) -> None:
    job_queue_depth.labels(kind).set(depth)
    job_queue_age.labels(kind).set(age_s)
    job_workers.labels(kind).set(workers)


def queues_unknown() -> None:
    """Temporal is away: no figure is better than one that looks as if nothing waited."""
    for gauge in (job_queue_depth, job_queue_age, job_workers):
        gauge.clear()


disk_folders: dict[str, str | os.PathLike[str]] = {}  # what `folder` stands for


def measure_disks() -> None:
    """Blocking, on a dead network mount for as long as that is dead."""
    for folder, path in disk_folders.items():
        try:
            found = os.statvfs(path)
        except OSError:
            for gauge in (disk_free, disk_size):
                if (folder,) in gauge._metrics:
                    gauge.remove(folder)
            continue
        disk_free.labels(folder).set(found.f_bavail * found.f_frsize)
        disk_size.labels(folder).set(found.f_blocks * found.f_frsize)


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
