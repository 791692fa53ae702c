"""From the store to files: ranges side by side, written in order, compared with what the store
tells of the object, and only then given their names."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cefmp4.errors import CefError, PermanentError, ProofFailedError, RefusedError, first_error
from cefmp4.model.object import StoredObject
from cefmp4.model.part import MIB
from cefmp4.ports.store import ObjectStore
from cefmp4.transfer.check import Check, check_of
from cefmp4.transfer.part_file import PartFile, is_there
from cefmp4.transfer.places import is_key, path_below
from cefmp4.transfer.result import Count, Hear, Status, Transferred, failed, ignore
from cefmp4.transfer.wire import AT_ONCE, each_as_it_comes, in_thread, opened, with_patience

PIECE_BYTES = 8 * MIB


async def download_files(
    store: ObjectStore,
    keys: Sequence[str],
    *,
    to: Path | str = ".",
    overwrite: bool = False,
    at_once: int = AT_ONCE,
    on_result: Hear = ignore,
    on_bytes: Count = ignore,
) -> list[Transferred]:
    """One result for each object, in the order in which they came to their ends. A key that ends
    with "/" stands for all objects below it, whose folders are kept. `at_once` bounds memory: so
    many pieces of 8 MiB. Raises OSError where there can be no folder `to`."""
    folder = Path(to)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    results: list[Transferred] = []

    def hear(result: Transferred) -> None:
        results.append(result)
        on_result(result)

    download = _Download(store, str(folder), overwrite, asyncio.Semaphore(at_once), on_bytes)

    async def fetch(wanted: _Wanted | Transferred) -> None:
        done = wanted if isinstance(wanted, Transferred) else await download.fetch(wanted)
        hear(done)

    async with aclosing(_wanted(store, keys)) as wanted:
        await each_as_it_comes(wanted, fetch, at_once=at_once, name="download")
    return results


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: str
    prefix: str | None = None  # "": all of the bucket


async def _wanted(
    store: ObjectStore, keys: Sequence[str]
) -> AsyncGenerator[_Wanted | Transferred, None]:
    for key in dict.fromkeys(keys):
        if not is_key(key):
            yield failed("", key, "no object can have this key")
        elif not key.endswith("/"):
            yield _Wanted(key)
        else:
            async for found in _below(store, key):
                yield found


async def _below(store: ObjectStore, prefix: str) -> AsyncGenerator[_Wanted | Transferred, None]:
    """All of the bucket for "/"."""
    listed, count = "" if prefix == "/" else prefix, 0
    try:
        async for found in store.list_objects(listed):
            count += 1
            if found.key.endswith("/"):
                yield Transferred(
                    path="", key=found.key, status=Status.SKIPPED, reason="it stands for a folder"
                )
            else:
                yield _Wanted(found.key, listed)
    except CefError as error:
        yield failed("", prefix, error)
    else:
        if not count:
            yield failed("", prefix, "there are no objects below it")


@dataclass(slots=True)
class _Download:
    store: ObjectStore
    folder: str
    overwrite: bool
    slots: asyncio.Semaphore  # of pieces that are in memory, or on their way there
    on_bytes: Count
    taken: set[str] = field(default_factory=set)  # names that other objects of this call go to

    async def fetch(self, wanted: _Wanted) -> Transferred:
        path = ""
        try:
            relpath = path_below(wanted.key, wanted.prefix)
            path = str(Path(self.folder, relpath))
            self._take(relpath)
            return await self._fetch(wanted.key, relpath, path)
        except NotADirectoryError:
            return failed(path, wanted.key, "there is a file or a link in the place of a folder")
        except (CefError, OSError) as error:
            return failed(path, wanted.key, error)

    def _take(self, relpath: str) -> None:
        if relpath in self.taken:
            raise RefusedError("another object that was asked for goes to this name")
        self.taken.add(relpath)

    async def _fetch(self, key: str, relpath: str, path: str) -> Transferred:
        stored = await with_patience(lambda: self.store.head(key))
        if stored is None:
            raise RefusedError("there is no such object", hint="a prefix ends with /")
        check = check_of(stored, etag_is_md5=self.store.proof.etag_is_md5)
        moved, status = 0, Status.PRESENT
        if not await in_thread(
            partial(is_there, self.folder, relpath, check, overwrite=self.overwrite)
        ):
            moved, status = await self._make(stored, check, relpath), Status.DONE
        return Transferred(
            path=path,
            key=key,
            status=status,
            bytes=stored.size,
            moved=moved,
            proven_by=check.by,
        )

    async def _make(self, stored: StoredObject, check: Check, relpath: str) -> int:
        async with opened(partial(PartFile.open, self.folder, relpath, stored)) as part:
            found, moved = part.size, await self._fill(part, stored)
            is_whole = await in_thread(partial(check.holds, part.fd))
            if found and not is_whole:  # what was found was something else, or the disk lost some
                part.start_over()
                moved += await self._fill(part, stored)
                is_whole = await in_thread(partial(check.holds, part.fd))
            if not is_whole:
                part.discard()
                raise ProofFailedError(f"what came is not the object: its {check.by} is another")
            await in_thread(lambda _is_stopped: part.place(overwrite=self.overwrite))
        return moved

    async def _fill(self, part: PartFile, stored: StoredObject) -> int:
        """Fetches what it lacks. Whoever holds a slot never waits for another one."""
        begun, reading = part.size, deque[asyncio.Task[bytes]]()
        with first_error():
            async with asyncio.TaskGroup() as group:
                try:
                    for start in range(begun, stored.size, PIECE_BYTES):
                        while self.slots.locked() and reading:
                            await self._write_next(part, reading)
                        await self.slots.acquire()
                        end = min(start + PIECE_BYTES, stored.size)
                        reading.append(group.create_task(self._read(part, stored, start, end)))
                    while reading:
                        await self._write_next(part, reading)
                finally:
                    for _ in reading:
                        self.slots.release()
        return part.size - begun

    async def _write_next(self, part: PartFile, reading: deque[asyncio.Task[bytes]]) -> None:
        try:
            data = await reading[0]
            await in_thread(lambda _is_stopped: part.append(data))
        finally:
            reading.popleft()
            self.slots.release()

    async def _read(self, part: PartFile, stored: StoredObject, start: int, end: int) -> bytes:
        try:
            data = await with_patience(
                lambda: self.store.read(stored.key, start, end, etag=stored.etag)
            )
        except ProofFailedError:
            part.discard()  # nobody will ever go on with it
            raise PermanentError("the object was replaced while it was fetched") from None
        if len(data) != end - start:
            raise PermanentError(f"the store gave {len(data)} of {end - start} bytes")
        self.on_bytes(len(data))
        return data
