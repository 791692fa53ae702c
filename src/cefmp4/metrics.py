"""Every metric, by name. Nothing else in the product names a metric."""

from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cefmp4.model.stream import Stream

REGISTRY = CollectorRegistry()

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

# The stream_id label is "" where METRICS_PER_STREAM is off, and for streams that have ended: their
# counts move there when their own series goes, so a sum over the family never falls.
parts_uploaded = Counter(
    "video_chunks_uploaded_total", "Parts stored", ["stream_id"], registry=REGISTRY
)
bytes_uploaded = Counter(
    "video_bytes_uploaded_total", "Bytes stored", ["stream_id"], registry=REGISTRY
)
stream_duration = Gauge(
    "video_stream_duration_seconds",
    "From first sight of a stream to its proven object",
    ["stream_id"],
    registry=REGISTRY,
)
processing_time = Gauge(
    "video_processing_time_seconds",
    "From the writer's close to the metadata document",
    ["stream_id"],
    registry=REGISTRY,
)
failed_operations = Counter(
    "video_failed_operations_total",
    "Operations that failed, by kind",
    ["operation_type", "stream_id"],
    registry=REGISTRY,
)
active_streams = Gauge(
    "active_streams_gauge", "Streams between first sight and their end", registry=REGISTRY
)
streams_completed = Counter(
    "streams_completed_total", "Streams whose object is proven", registry=REGISTRY
)
streams_failed = Counter("streams_failed_total", "Streams that failed", registry=REGISTRY)

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
retries = Counter("cefmp4_retries_total", "Requests tried again", ["server"], registry=REGISTRY)
open_uploads = Gauge(
    "cefmp4_open_multipart_uploads", "Multipart uploads we hold open", registry=REGISTRY
)
orphan_uploads = Gauge(
    "cefmp4_orphan_multipart_uploads", "Open uploads that no stream claims", registry=REGISTRY
)
events_dropped = Counter(
    "cefmp4_events_dropped_total", "Times the kernel lost events of the folder", registry=REGISTRY
)
rescans = Counter("cefmp4_rescans_total", "Full looks at the folder", ["cause"], registry=REGISTRY)
stale_outcomes = Counter(
    "cefmp4_stale_streams_total", "Stale streams, by what was done", ["outcome"], registry=REGISTRY
)
server_up = Gauge(
    "cefmp4_server_up", "1 while the server answers, else 0", ["server"], registry=REGISTRY
)
slots_in_use = Gauge("cefmp4_part_slots_in_use", "Parts on the wire", registry=REGISTRY)
leases_lost = Counter(
    "cefmp4_leases_lost_total", "Streams another instance took over", registry=REGISTRY
)

_JOB_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600)

job_queue_depth = Gauge(
    "cefmp4_job_queue_depth", "Jobs that wait, back-off included", ["kind"], registry=REGISTRY
)
job_queue_age = Gauge(
    "cefmp4_job_queue_age_seconds",
    "How long the longest waiting job could have been running",
    ["kind"],
    registry=REGISTRY,
)
job_duration = Histogram(
    "cefmp4_job_duration_seconds",
    "Time one attempt took that completed its job",
    ["kind"],
    buckets=_JOB_SECONDS,
    registry=REGISTRY,
)
job_results = Counter(
    "cefmp4_job_results_total",
    "Ended attempts: complete, error, cancelled, dead_letter, retried, released, moved, no_room, "
    "no_program, server_away or fenced",
    ["kind", "outcome"],
    registry=REGISTRY,
)
job_slots_in_use = Gauge(
    "cefmp4_job_slots_in_use", "Slots that jobs hold", ["slot"], registry=REGISTRY
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
encoder_fallbacks = Counter(
    "cefmp4_encoder_fallbacks_total",
    "Times an encoder was passed over, at the start of the worker or for a job with a GPU slot",
    ["encoder", "reason"],
    registry=REGISTRY,
)


# Series of one stream. They go some time after their stream, so that a scrape still sees its end.


class StreamSeries:
    """Keeps the stream_id label within bounds: it is set while a stream lives, and what the series
    counted moves to stream_id="" when it goes."""

    GRACE_S = 120.0

    def __init__(self) -> None:
        self.is_per_stream = True
        self._ended: list[tuple[float, str]] = []

    def label(self, stream_id: str) -> str:
        return stream_id if self.is_per_stream else ""

    def end(self, stream_id: str, now: float) -> None:
        if self.is_per_stream:
            self._ended.append((now, stream_id))

    def sweep(self, now: float) -> None:
        while self._ended and now - self._ended[0][0] >= self.GRACE_S:
            _, stream_id = self._ended.pop(0)
            for counter in (parts_uploaded, bytes_uploaded):
                counter.labels("").inc(counter.labels(stream_id)._value.get())
                counter.remove(stream_id)
            for gauge in (stream_duration, processing_time):
                _remove(gauge, stream_id)
            for operation in FAILED_OPERATIONS:
                _fold_failures(operation, stream_id)


FAILED_OPERATIONS = frozenset(
    {"upload_gone", "read", "proof", "failed", "truncated", "missing", "metadata", "crash"}
)
streams = StreamSeries()


def _remove(family: Gauge | Counter, *labels: str) -> None:
    with suppress(KeyError):  # this stream never had such a series
        family.remove(*labels)


def _fold_failures(operation: str, stream_id: str) -> None:
    count = failed_operations.labels(operation, stream_id)._value.get()
    if count:
        failed_operations.labels(operation, "").inc(count)
    _remove(failed_operations, operation, stream_id)


def is_server_down(server: str) -> bool:
    """Whether its last request failed; a server nobody asked yet is not down."""
    return (server,) in server_up._metrics and server_up.labels(server)._value.get() == 0


def count_part(stream_id: str, size: int, *, is_copy: bool) -> None:
    label = streams.label(stream_id)
    parts_uploaded.labels(label).inc()
    bytes_uploaded.labels(label).inc(size)
    if is_copy:
        parts_copied.inc()


def count_failure(operation: str, stream_id: str) -> None:
    failed_operations.labels(operation, streams.label(stream_id)).inc()


def stream_stored(stream: Stream) -> None:
    streams_completed.inc()
    label = streams.label(stream.id)
    stream_duration.labels(label).set(max(0.0, stream.completed_at - stream.started_at))
    if stream.closed_at:
        close_to_object.observe(max(0.0, stream.completed_at - stream.closed_at))


def stream_described(stream: Stream, now: float) -> None:
    if stream.closed_at:
        label = streams.label(stream.id)
        processing_time.labels(label).set(max(0.0, now - stream.closed_at))
