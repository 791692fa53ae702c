"""A checkpoint store in memory with the semantics of the real one, faults on demand included."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from cefmp4.errors import LeaseLostError
from cefmp4.model.part import Part
from cefmp4.model.stream import Stream
from cefmp4.model.view import StreamView
from cefmp4.ports.checkpoints import Lease
from cefmp4.storage.redis.owner import is_dead


class FakeCheckpointStore:
    """Instances are told apart by the owner they pass, so several may share one object."""

    def __init__(
        self,
        *,
        lease_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        is_dead: Callable[[str], bool] = is_dead,
    ) -> None:
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._is_dead = is_dead
        self._fence = 0
        self._faults: dict[str, list[BaseException]] = {}
        self._listeners: list[asyncio.Queue[tuple[str, str]]] = []
        self.calls: Counter[str] = Counter()
        self.wipe()

    def fail(self, operation: str, error: Exception, times: int = 1) -> None:
        self._faults.setdefault(operation, []).extend([error] * times)

    def wipe(self) -> None:
        """FLUSHALL."""
        self._used: set[str] = set()
        self._paths: dict[tuple[str, str], str] = {}  # folder and path -> id
        self._streams: dict[str, Stream] = {}
        self._parts: dict[str, dict[int, Part]] = {}
        self._keys: dict[str, str] = {}
        self._leases: dict[str, tuple[str, int, float]] = {}
        self._memos: dict[str, str] = {}
        self._views: list[StreamView] = []
        self._note = ""

    async def is_fresh(self, folder: str = "") -> bool:
        async with self._step("is_fresh"):
            return folder not in self._used

    async def mark_used(self, folder: str = "") -> None:
        async with self._step("mark_used"):
            self._used.add(folder)

    async def load_streams(self, folder: str | None = None) -> list[Stream]:
        async with self._step("load_streams"):
            ids = [id for (there, _), id in self._paths.items() if folder in (None, there)]
            return [self._streams[stream_id] for stream_id in dict.fromkeys(ids)]

    async def load_displaced(self, folder: str) -> list[Stream]:
        async with self._step("load_displaced"):
            return [
                stream
                for stream in self._streams.values()
                if stream.folder == folder and self._is_displaced(stream.id)
            ]

    async def load_stream(self, stream_id: str) -> Stream | None:
        async with self._step("load_stream"):
            return self._streams.get(stream_id)

    async def load_stream_at(self, folder: str, relpath: str) -> Stream | None:
        async with self._step("load_stream_at"):
            stream_id = self._paths.get((folder, relpath), "")
            return self._streams.get(stream_id)

    async def load_streams_of_keys(self, keys: Sequence[str]) -> list[Stream]:
        async with self._step("load_streams_of_keys"):
            ids = [self._keys[key] for key in keys if key in self._keys]
            return [self._streams[one] for one in ids if one in self._streams]

    async def load_parts(self, stream_id: str) -> dict[int, Part]:
        async with self._step("load_parts"):
            return dict(sorted(self._parts.get(stream_id, {}).items()))

    async def claim(self, stream: Stream, owner: str) -> Lease | None:
        async with self._step("claim"):
            lease = self._lease_of(stream.id)
            if lease and lease.owner == owner:
                return self._hold(lease)
            is_pathless = self._is_displaced(stream.id)
            if lease or not (is_pathless or self._may_take_path(stream, owner)):
                return None
            self._fence += 1
            if not is_pathless:
                self._paths[_place(stream)] = stream.id
            self._streams.setdefault(stream.id, stream)
            self._hold_key(stream)
            return self._hold(Lease(stream.id, owner, self._fence))

    async def renew(self, leases: Iterable[Lease]) -> set[str]:
        async with self._step("renew"):
            lost = set()
            for lease in leases:
                if self._is_held(lease):
                    self._hold(lease)
                else:
                    lost.add(lease.stream_id)
            return lost

    async def release(self, lease: Lease) -> None:
        async with self._step("release"):
            if self._is_held(lease):
                del self._leases[lease.stream_id]

    async def holder(self, stream_id: str) -> str | None:
        async with self._step("holder"):
            lease = self._lease_of(stream_id)
            return lease.owner if lease else None

    async def save(
        self, stream: Stream, lease: Lease, *, parts: Iterable[Part] = (), drop: Iterable[int] = ()
    ) -> bool:
        async with self._step("save"):
            if lease.stream_id != stream.id or not self._is_held(lease):
                raise LeaseLostError(f"stream {stream.id} is no longer ours")
            former = self._streams.get(stream.id)
            if former and _place(former) != _place(stream):
                self._let_path_go(former)
                self._paths[_place(stream)] = stream.id
            self._paths.setdefault(_place(stream), stream.id)
            if former and former.key != stream.held_key:
                self._let_key_go(former)
            self._streams[stream.id] = stream
            kept = self._parts.setdefault(stream.id, {})
            for number in drop:
                kept.pop(number, None)
            kept.update({part.number: part for part in parts})
            return self._hold_key(stream)

    async def forget(self, stream: Stream) -> None:
        async with self._step("forget"):
            if self._lease_of(stream.id):
                raise LeaseLostError(f"stream {stream.id} is being worked on")
            self._let_path_go(stream)
            self._leases.pop(stream.id, None)
            self._erase_back_from(stream.id)

    async def adopt(self, folder: str, streams: Iterable[Stream]) -> list[Stream]:
        async with self._step("adopt"):
            adopted = []
            for stream in streams:
                is_free = not self._leases_at_all(stream.id) and self._is_at(stream)
                if is_free and (folder, stream.relpath) not in self._paths:
                    self._let_path_go(stream)
                    mine = stream.in_folder(folder)
                    self._paths[_place(mine)] = mine.id
                    self._streams[mine.id] = mine
                    adopted.append(mine)
            return adopted

    async def request(self, action: str, stream_id: str) -> None:
        async with self._step("request"):
            for listener in self._listeners:
                listener.put_nowait((action, stream_id))

    async def requests(self) -> AsyncIterator[tuple[str, str]]:
        with self._listening() as listener:
            while True:
                yield await listener.get()

    async def remember(self, name: str, value: str) -> None:
        async with self._step("remember"):
            self._memos[name] = value

    async def recall(self, name: str) -> str | None:
        async with self._step("recall"):
            return self._memos.get(name)

    async def publish_views(self, views: list[StreamView], note: str = "") -> None:
        async with self._step("publish_views"):
            self._views, self._note = list(views), note

    async def load_views(self) -> list[StreamView]:
        async with self._step("load_views"):
            return list(self._views)

    async def load_notes(self) -> dict[str, str]:
        async with self._step("load_notes"):
            return {"fake": self._note} if self._note else {}

    @asynccontextmanager
    async def _step(self, operation: str) -> AsyncIterator[None]:
        """One call: lets others run, as the network would, then fails as told."""
        await asyncio.sleep(0)
        self.calls[operation] += 1
        if faults := self._faults.get(operation):
            raise faults.pop(0)
        yield

    def _lease_of(self, stream_id: str) -> Lease | None:
        owner, fence, until = self._leases.get(stream_id, ("", 0, 0.0))
        if not owner or self._clock() >= until or self._is_dead(owner):
            return None
        return Lease(stream_id, owner, fence)

    def _leases_at_all(self, stream_id: str) -> bool:
        _, _, until = self._leases.get(stream_id, ("", 0, 0.0))
        return self._clock() < until

    def _is_held(self, lease: Lease) -> bool:
        owner, fence, until = self._leases.get(lease.stream_id, ("", 0, 0.0))
        return (owner, fence) == (lease.owner, lease.fence) and self._clock() < until

    def _hold(self, lease: Lease) -> Lease:
        until = self._clock() + self._lease_seconds
        self._leases[lease.stream_id] = (lease.owner, lease.fence, until)
        return lease

    def _may_take_path(self, stream: Stream, owner: str) -> bool:
        held = self._paths.get(_place(stream), stream.id)
        if held == stream.id:
            return True
        if held != stream.previous_id and held in self._streams:
            return False
        lease = self._lease_of(held)
        if lease and lease.owner != owner:
            return False
        grandparent = self._streams[held].previous_id if held in self._streams else None
        is_needed = grandparent and (
            self._lease_of(grandparent)
            or self._is_latest(grandparent)
            or self._is_displaced(grandparent)
        )
        if grandparent and not is_needed:
            self._erase(grandparent)
        return True

    def _is_displaced(self, stream_id: str) -> bool:
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.is_final and not self._is_latest(stream_id)

    def _is_latest(self, stream_id: str) -> bool:
        stream = self._streams.get(stream_id)
        return stream is not None and self._is_at(stream)

    def _is_at(self, stream: Stream) -> bool:
        return self._paths.get(_place(stream)) == stream.id

    def _let_path_go(self, stream: Stream) -> None:
        if self._is_at(stream):
            del self._paths[_place(stream)]

    def _hold_key(self, stream: Stream) -> bool:
        key = stream.held_key
        return not key or self._keys.setdefault(key, stream.id) == stream.id

    def _let_key_go(self, stream: Stream) -> None:
        if self._keys.get(stream.key) == stream.id:
            del self._keys[stream.key]

    def _erase_back_from(self, stream_id: str) -> None:
        while former := self._erase(stream_id):
            self._let_key_go(former)
            previous = self._streams.get(former.previous_id or "")
            if not previous or self._lease_of(previous.id) or self._is_latest(previous.id):
                return
            if _place(previous) == _place(former):
                self._paths.setdefault(_place(former), previous.id)
                return
            stream_id = previous.id

    def _erase(self, stream_id: str) -> Stream | None:
        stream = self._streams.pop(stream_id, None)
        self._parts.pop(stream_id, None)
        if stream:
            self._let_path_go(stream)
        return stream

    @contextmanager
    def _listening(self) -> Iterator[asyncio.Queue[tuple[str, str]]]:
        listener: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)


def _place(stream: Stream) -> tuple[str, str]:
    return stream.folder, stream.relpath
