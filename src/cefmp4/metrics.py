"""Every metric, by name. Nothing else in the product names a metric."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
