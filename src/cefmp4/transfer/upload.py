"""From files to the store: read once for their checksums, then sent in parts side by side, each of
which the store compares with those; an upload that was cut off is gone on with.

Nothing is written over without being told to, and nothing ever over a recording."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from os import PathLike, fspath
from typing import TypeAlias

from cefmp4.errors import CefError, KeyTakenError, ProofFailedError, RefusedError
from cefmp4.model import names
from cefmp4.model.object import PartProof
from cefmp4.model.part import MIB, PartPlan, PartSizing
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.file import SourceFile
from cefmp4.transfer.check import Check, Known, check_of
from cefmp4.transfer.content import Content, read_content
from cefmp4.transfer.local_files import LocalFile, files_of
from cefmp4.transfer.multipart import Multipart
from cefmp4.transfer.notes import UploadNotes
from cefmp4.transfer.places import key_of
from cefmp4.transfer.result import Count, Hear, Status, Transferred, failed, ignore
from cefmp4.transfer.wire import AT_ONCE, each_as_it_comes, in_thread, opened, with_patience

PLAN = PartPlan(10 * MIB, PartSizing.GROW)
NO_NOTES = UploadNotes(None)

_Outcome: TypeAlias = tuple[Status, Known, int]  # and how many bytes were sent


async def upload_files(
    store: ObjectStore,
    paths: Sequence[str | PathLike[str]],
    *,
    prefix: str = "",
    overwrite: bool = False,
    at_once: int = AT_ONCE,
    plan: PartPlan = PLAN,
    notes: UploadNotes = NO_NOTES,
    on_result: Hear = ignore,
    on_bytes: Count = ignore,
) -> list[Transferred]:
    """One result for each file, in the order in which they came to their ends. A folder stands for
    all files below it, whose places in it are kept in their keys. `plan`: how large files are cut.
    `notes`: where it is written down which uploads are open; without, none is gone on with."""
    results: list[Transferred] = []

    def hear(result: Transferred) -> None:
        results.append(result)
        on_result(result)

    upload = _Upload(
        store=store,
        prefix=prefix,
        overwrite=overwrite,
        plan=plan,
        notes=notes,
        at_once=at_once,
        slots=asyncio.Semaphore(at_once),
        on_bytes=on_bytes,
    )

    async def send(found: LocalFile | Transferred) -> None:
        hear(found if isinstance(found, Transferred) else await upload.send(found))

    async with aclosing(files_of([fspath(path) for path in paths])) as files:
        await each_as_it_comes(files, send, at_once=at_once, name="upload")
    return results


@dataclass(slots=True, kw_only=True)
class _Upload:
    store: ObjectStore
    prefix: str
    overwrite: bool
    plan: PartPlan
    notes: UploadNotes
    at_once: int
    slots: asyncio.Semaphore
    on_bytes: Count
    taken: set[str] = field(default_factory=set)  # keys of other files of this call

    async def send(self, file: LocalFile) -> Transferred:
        key = ""
        try:
            key = key_of(file.name, self.prefix)
            if key in self.taken:
                raise RefusedError("another file that was asked for goes to this key")
            self.taken.add(key)
            async with opened(partial(SourceFile.open, file.root, file.relpath)) as source:
                return await self._send(source, key, file.path)
        except FileNotFoundError:
            return failed(file.path, key, "there is no such file")
        except ProofFailedError:
            return failed(file.path, key, "the store got other bytes: the file changed meanwhile")
        except (CefError, OSError) as error:
            return failed(file.path, key, error)

    async def _send(self, source: SourceFile, key: str, path: str) -> Transferred:
        content = await in_thread(partial(read_content, source, self.plan))
        send = self._in_one_piece if content.is_one_piece else self._in_parts
        status, proven_by, moved = await send(source, key, content)
        return Transferred(
            path=path,
            key=key,
            status=status,
            bytes=content.size,
            moved=moved,
            proven_by=proven_by,
        )

    async def _in_one_piece(self, source: SourceFile, key: str, content: Content) -> _Outcome:
        if found := await self._find(source, key, content):
            return Status.PRESENT, found, 0
        try:
            async with self.slots:
                await with_patience(
                    lambda: self.store.put_object(
                        key,
                        source.range(0, content.size),
                        content_type=names.content_type_of(key),
                        metadata={},
                        crc64=content.crc64,
                        if_absent=not self.overwrite,
                    )
                )
        except KeyTakenError:  # just now, perhaps by ourselves: the answer was lost
            if not await self._find(source, key, content):
                raise
        self.on_bytes(content.size)
        return Status.DONE, self._proof, content.size

    async def _in_parts(self, source: SourceFile, key: str, content: Content) -> _Outcome:
        """An object may be there, and its upload not at its end: a server that failed in the middle
        of completing it left both, and the object needs the parts of the upload."""

        async def is_stored() -> bool:
            try:
                return await self._find(source, key, content) is not None
            except RefusedError:
                return False

        async with opened(partial(self.notes.open, key)) as note:
            found = await self._find(source, key, content)
            parts = Multipart(
                store=self.store,
                key=key,
                source=source,
                content=content,
                note=note,
                overwrite=self.overwrite,
                at_once=self.at_once,
                slots=self.slots,
                on_bytes=self.on_bytes,
                is_stored=is_stored,
            )
            if not await parts.is_open() and found:
                await parts.abandon()
                return Status.PRESENT, found, 0
            await parts.send()
            return Status.DONE, self._proof, parts.moved

    @property
    def _proof(self) -> Known:
        """What the store has compared."""
        is_crc = self.store.proof.part is PartProof.CRC64NVME
        return Known.CRC64 if is_crc else Known.MD5

    async def _find(self, source: SourceFile, key: str, content: Content) -> Known | None:
        """What shows that the object is there. Raises RefusedError where another one lies there
        that is not to be replaced."""
        stored = await with_patience(lambda: self.store.head(key))
        if stored is None:
            return None
        check = check_of(stored, etag_is_md5=self.store.proof.etag_is_md5)
        if await self._is_same(source, content, check):
            return check.by
        if stored.metadata.get(names.META_STREAM_ID):
            raise RefusedError("a recording lies there, and is never written over")
        if not self.overwrite:
            raise RefusedError("another object lies there", hint="--overwrite replaces it")
        return None

    async def _is_same(self, source: SourceFile, content: Content, check: Check) -> bool:
        if check.by is Known.CRC64:
            stored = check.stored
            return (stored.size, stored.crc64) == (content.size, content.crc64)
        return check.by is not Known.SIZE and await in_thread(partial(check.holds, source.fd))
