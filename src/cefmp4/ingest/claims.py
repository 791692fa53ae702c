"""Streams in Redis, for whoever wants to work on one: looked up, claimed for this instance, and
kept. Waits for a Redis that is away."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cefmp4.errors import LeaseLostError
from cefmp4.ingest.record import StreamRecord
from cefmp4.model.part import Part
from cefmp4.model.stream import Stream
from cefmp4.ports.checkpoints import CheckpointStore, Lease
from cefmp4.retry import patiently


class ForeignStreamError(Exception):
    """Another instance works on it, Redis was emptied just now, or it lies in another folder; ask
    again later."""


@dataclass(slots=True, kw_only=True)
class Claims:
    """`owner`: this instance; `folder`: the identity of the watched folder."""

    checkpoints: CheckpointStore
    owner: str
    folder: str = ""
    wall_clock: Callable[[], float]

    async def is_fresh(self) -> bool:
        return await patiently(lambda: self.checkpoints.is_fresh(self.folder), what="stream lookup")

    async def mark_used(self) -> None:
        await patiently(lambda: self.checkpoints.mark_used(self.folder), what="checkpoint")

    async def load_streams(self, folder: str | None = None) -> list[Stream]:
        return await patiently(
            lambda: self.checkpoints.load_streams(folder), what="loading of checkpoints"
        )

    async def load(self, stream_id: str | None) -> Stream | None:
        if stream_id is None:
            return None
        return await patiently(
            lambda: self.checkpoints.load_stream(stream_id), what="stream lookup"
        )

    async def load_at(self, relpath: str) -> Stream | None:
        return await patiently(
            lambda: self.checkpoints.load_stream_at(self.folder, relpath), what="stream lookup"
        )

    async def load_displaced(self) -> list[Stream]:
        return await patiently(
            lambda: self.checkpoints.load_displaced(self.folder), what="stream lookup"
        )

    async def load_parts(self, stream_id: str) -> dict[int, Part]:
        return await patiently(lambda: self.checkpoints.load_parts(stream_id), what="part lookup")

    async def latest(self, stream: Stream) -> StreamRecord:
        """As Redis knows it: its former owner may have gone on until we claimed it. Raises
        ForeignStreamError."""
        lease = await self._lease(stream)
        latest = await self.load(stream.id)
        return self._record_of(latest or stream, lease, await self.load_parts(stream.id))

    async def new(self, stream: Stream, parts: dict[int, Part]) -> StreamRecord:
        """As it is given. Raises ForeignStreamError."""
        return self._record_of(stream, await self._lease(stream), parts)

    async def write(self, stream: Stream, parts: dict[int, Part] | None = None) -> Stream | None:
        """The record of a stream that needs no work; None when somebody else holds it. `parts`
        None: those that Redis knows."""
        try:
            lease = await self._lease(stream)
            known = await self.load_parts(stream.id) if parts is None else parts
            record = self._record_of(stream, lease, known)
            await record.restore()
        except (ForeignStreamError, LeaseLostError):
            return None
        await record.release()
        return record.stream

    async def adopt(self, streams: list[Stream]) -> list[Stream]:
        return await patiently(
            lambda: self.checkpoints.adopt(self.folder, streams), what="checkpoint"
        )

    async def renew(
        self, records: Iterable[StreamRecord], *, on_lost: Callable[[StreamRecord], None]
    ) -> None:
        """Keeps the leases alive. Raises TransientError while Redis is away."""
        held = {one.stream.id: one for one in records if not one.is_released}
        for stream_id in await self.checkpoints.renew([one.lease for one in held.values()]):
            record = held[stream_id]
            if not await self._is_won_back(record):
                on_lost(record)

    async def _is_won_back(self, record: StreamRecord) -> bool:
        """A lease that ran out while we were stopped, or was wiped, may still be free. One that was
        released is not missed."""
        if record.is_released:
            return True
        try:
            await record.restore()
        except LeaseLostError:
            return record.is_released
        return True

    async def forget(self, stream: Stream) -> None:
        """One that was released."""
        await patiently(lambda: self.checkpoints.forget(stream), what="checkpoint")

    async def _lease(self, stream: Stream) -> Lease:
        lease = await patiently(lambda: self.checkpoints.claim(stream, self.owner), what="claim")
        if lease is None:
            raise ForeignStreamError
        return lease

    def _record_of(self, stream: Stream, lease: Lease, parts: dict[int, Part]) -> StreamRecord:
        return StreamRecord(
            stream=stream,
            lease=lease,
            parts=parts,
            checkpoints=self.checkpoints,
            wall_clock=self.wall_clock,
        )
