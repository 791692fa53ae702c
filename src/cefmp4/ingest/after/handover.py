"""Metadata → job: exactly one job a generation, however often it is submitted."""

from cefmp4.model.job import JobKind, JobSpec, input_of_stream
from cefmp4.model.stream import Stream
from cefmp4.ports.jobs import JobSink
from cefmp4.retry import patiently


class Handover:
    """`kinds` empty: nothing is handed over."""

    def __init__(
        self,
        *,
        sink: JobSink,
        kinds: tuple[JobKind, ...],
        bucket: str,
        watch_dir: str,
        max_attempts: int,
    ) -> None:
        self._sink = sink
        self._kinds = kinds
        self._bucket = bucket
        self._watch_dir = watch_dir
        self._max_attempts = max_attempts

    async def submit(self, stream: Stream) -> bool:
        """Whether there is anything for workers to do. What cannot be played makes no job."""
        if not (self._kinds and stream.playable):
            return False
        for kind in self._kinds:
            spec = JobSpec(
                subject=stream.id,
                kind=kind,
                input=input_of_stream(stream, bucket=self._bucket, folder=self._watch_dir),
                max_attempts=self._max_attempts,
            )
            await patiently(lambda spec=spec: self._sink.submit(spec), what="hand-over")  # type: ignore[misc]
        return True
