"""One file in parts, side by side: what an earlier try left open is gone on with, what it left of
other bytes is aborted."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from time import time

from cefmp4.errors import KeyTakenError, UploadGoneError
from cefmp4.model import names
from cefmp4.model.object import ListedPart
from cefmp4.model.part import Part, PartRange
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_and_md5, spell_hex_crc64
from cefmp4.recording.file import SourceFile
from cefmp4.tasks import each, finish
from cefmp4.transfer.content import Content
from cefmp4.transfer.notes import Note
from cefmp4.transfer.result import Count
from cefmp4.transfer.wire import in_thread, with_patience

LAST_ANSWER_S = 3.0


@dataclass(slots=True, kw_only=True)
class Multipart:
    """`is_stored` asks whether the store has an object of these very bytes under the key."""

    store: ObjectStore
    key: str
    source: SourceFile
    content: Content
    note: Note
    overwrite: bool
    at_once: int
    slots: asyncio.Semaphore
    on_bytes: Count
    is_stored: Callable[[], Awaitable[bool]]
    parts: dict[int, Part] = field(default_factory=dict)
    moved: int = 0

    async def is_open(self) -> bool:
        """Whether an upload of these very bytes was begun, and can be gone on with; then it knows
        of the parts that are there."""
        begun = self.note.upload_id
        if not begun or self.note.content != str(self.content):
            return False
        try:
            listed = await with_patience(lambda: self.store.list_parts(self.key, begun))
        except UploadGoneError:
            await self.forget()
            return False
        await self._keep({part.number: part for part in listed})
        return True

    async def send(self) -> None:
        """After `is_open`."""
        try:
            if self.note.content != str(self.content):
                await self._begin()
            await self._send_and_complete()
        except UploadGoneError:  # somebody aborted it: a rule of the bucket, say
            self.parts.clear()
            await self.forget()
            await self._begin()
            await self._send_and_complete()

    async def forget(self) -> None:
        await in_thread(lambda _is_stopped: self.note.write("", ""))

    async def abandon(self) -> None:
        """Whatever is open for the key from an earlier try."""
        former = self.note.upload_id
        if former:
            await with_patience(lambda: self.store.abort_upload(self.key, former))
        await self.forget()

    async def _begin(self) -> None:
        """Not torn by a cancel: nothing but the answer tells which upload is ours."""
        await self.abandon()
        await finish(self._begin_noted(), name="upload start", patience_s=LAST_ANSWER_S)

    async def _begin_noted(self) -> None:
        upload_id = await with_patience(
            lambda: self.store.begin_upload(
                self.key,
                content_type=names.content_type_of(self.key),
                metadata={names.META_CRC64: spell_hex_crc64(self.content.crc64)},
            )
        )
        await in_thread(lambda _is_stopped: self.note.write(str(self.content), upload_id))

    async def _keep(self, listed: dict[int, ListedPart]) -> None:
        """Of the parts that are there, those that have our bytes for sure."""
        if not self.store.proof.etag_is_md5:
            return
        for cut, crc64 in self.content.parts:
            part = listed.get(cut.number)
            if part is None or part.size != cut.size:
                continue
            if await in_thread(partial(_digests_of, self.source, cut)) == (crc64, part.etag):
                self._stored(cut, crc64, part.etag)

    def _stored(self, cut: PartRange, crc64: int, etag: str) -> None:
        self.parts[cut.number] = Part(
            number=cut.number, size=cut.size, crc64=crc64, etag=etag, uploaded_at=time()
        )

    async def _send_and_complete(self) -> None:
        missing = [one for one in self.content.parts if one[0].number not in self.parts]
        await each(missing, self._send_part, at_once=self.at_once, name="part")
        try:
            await self._complete(if_absent=not self.overwrite)
        except KeyTakenError:
            if not await self.is_stored():
                await self.abandon()
                raise
            # A Complete that failed half way has made it, and needs to be asked for once more.
            await self._complete(if_absent=False)
        await self.forget()

    async def _complete(self, *, if_absent: bool) -> None:
        parts = [self.parts[number] for number in sorted(self.parts)]
        await with_patience(
            lambda: self.store.complete_upload(
                self.key,
                self.note.upload_id,
                parts,
                crc64=self.content.crc64,
                if_absent=if_absent,
            )
        )

    async def _send_part(self, one: tuple[PartRange, int]) -> None:
        cut, crc64 = one
        body = self.source.range(cut.start, cut.end)
        async with self.slots:
            etag = await with_patience(
                lambda: self.store.put_part(
                    self.key, self.note.upload_id, cut.number, body, crc64=crc64
                )
            )
        self._stored(cut, crc64, etag)
        self.moved += cut.size
        self.on_bytes(cut.size)


def _digests_of(
    source: SourceFile, cut: PartRange, is_stopped: Callable[[], bool]
) -> tuple[int, str] | None:
    return crc_and_md5(source.fd, cut.start, cut.end, is_stopped=is_stopped)
