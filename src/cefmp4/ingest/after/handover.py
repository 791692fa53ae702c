"""From the metadata to the jobs: exactly one of each kind a generation, however often it is
submitted. What the engine could not take is owed to it; uploads do not wait for that."""

import asyncio
from dataclasses import dataclass, field
from functools import partial

import structlog

from cefmp4.errors import CefError, LeaseLostError
from cefmp4.ingest.claims import Claims, ForeignStreamError
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.record import StreamRecord
from cefmp4.jobs.callbacks.messages import spec_of_stored
from cefmp4.model.job import JobKind, spec_of_stream
from cefmp4.model.stream import Stream, StreamState
from cefmp4.ports.jobs import JobSink
from cefmp4.reachability import level_of
from cefmp4.retry import HEALABLE, patiently

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Handover:
    """`kinds` of jobs are made of what can be played. `calls_back`: whoever listens at WEBHOOK_URL
    is told of every recording."""

    sink: JobSink
    claims: Claims
    index: FinishedIndex
    kinds: tuple[JobKind, ...]
    calls_back: bool
    bucket: str
    watch_dir: str
    max_attempts: int
    _owed: dict[str, Stream] = field(default_factory=dict, init=False)
    _is_in_debt: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __repr__(self) -> str:
        return f"<Handover owed={len(self._owed)}>"

    def wants(self, stream: Stream) -> bool:
        """Whether there is anything for workers to do."""
        return self.calls_back or bool(self.kinds and stream.playable)

    async def now_or_later(self, record: StreamRecord) -> None:
        """Whoever comes while others wait, waits behind them: the engine is away."""
        if not self._owed and await self._is_taken(record.stream):
            await record.handed_over()
        else:
            self.owe(record.stream)

    def owe(self, stream: Stream) -> None:
        """One that is described."""
        if self.wants(stream):
            self._owed[stream.id] = stream
            self._is_in_debt.set()

    async def run(self) -> None:
        """Hands over what is owed, as soon as the engine takes it. Never returns."""
        while True:
            await self._is_in_debt.wait()
            stream = next(iter(self._owed.values()))
            try:
                await patiently(partial(self._submit, stream), what="hand-over")
                await self._write_down(stream)
            except (ForeignStreamError, LeaseLostError):
                pass  # it is known to the engine, and a later generation has its place
            except CefError as error:
                log.error("hand-over failed", stream_id=stream.id, reason=str(error))  # noqa: TRY400
            except Exception:
                log.exception("hand-over crashed", stream_id=stream.id)
            del self._owed[stream.id]
            if not self._owed:
                self._is_in_debt.clear()

    async def _is_taken(self, stream: Stream) -> bool:
        try:
            await self._submit(stream)
        except HEALABLE as error:
            log.log(level_of(error), "hand-over waits", reason=str(error))
            return False
        return True

    async def _submit(self, stream: Stream) -> None:
        for kind in self.kinds if stream.playable else ():
            spec = spec_of_stream(
                stream,
                kind=kind,
                bucket=self.bucket,
                watch_dir=self.watch_dir,
                max_attempts=self.max_attempts,
            )
            await self.sink.submit(spec)
        if self.calls_back:
            await self.sink.submit(
                spec_of_stored(stream, bucket=self.bucket, watch_dir=self.watch_dir)
            )

    async def _write_down(self, owed: Stream) -> None:
        """Unless it was forgotten meanwhile."""
        known = await self.claims.load(owed.id)
        if known is None or known.state is not StreamState.DESCRIBED:
            return
        record = await self.claims.latest(known)
        await record.handed_over()
        await record.release()
        stream, finished = record.stream, self.index.get(record.stream.relpath)
        if finished is not None and finished.stream_id == stream.id:
            self.index.add(stream)
        else:
            self.index.show(stream)
