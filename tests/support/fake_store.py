"""An object store in memory with the semantics of S3, faults on demand included."""

import asyncio
import hashlib
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from awscrt.checksums import crc64nvme

from cefmp4.errors import KeyTakenError, PermanentError, ProofFailedError, UploadGoneError
from cefmp4.model.names import META_CRC64, META_STREAM_ID
from cefmp4.model.object import (
    FileRange,
    ListedPart,
    OpenUpload,
    PartProof,
    StoredObject,
    StoreProof,
)
from cefmp4.model.part import MIN_PART_BYTES, Part

FULL_PROOF = StoreProof(
    part=PartProof.CRC64NVME,
    full_object_crc=True,
    etag_is_md5=True,
    put_if_absent=True,
    complete_if_absent=True,
)


@dataclass(frozen=True, slots=True)
class Call:
    """One line of the journal."""

    operation: str
    key: str
    number: int = 0  # of the part


@dataclass(slots=True)
class Gate:
    """Where a paused call waits: `reached` is set when it is there, `release` lets it go on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self.opened.set()


@dataclass(slots=True)
class _Upload:
    key: str
    content_type: str
    metadata: dict[str, str]
    initiated_at: float
    parts: dict[int, bytes] = field(default_factory=dict)


class FakeObjectStore:
    """`min_part_bytes` 0 lets tests use parts of any size. What it holds can be looked at:
    `data`, `open_uploads`; what was asked of it: `journal` in order, `calls` counted."""

    def __init__(
        self,
        *,
        min_part_bytes: int = MIN_PART_BYTES,
        proof: StoreProof = FULL_PROOF,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._min_part_bytes = min_part_bytes
        self._proof = proof
        self._clock = clock
        self._objects: dict[str, tuple[StoredObject, bytes]] = {}
        self._uploads: dict[str, _Upload] = {}
        self._faults: dict[str, list[Exception]] = {}
        self._lost_answers: dict[str, list[Exception]] = {}
        self._gates: dict[str, Gate] = {}
        self.journal: list[Call] = []
        self.calls: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<FakeObjectStore objects={sorted(self._objects)} uploads={len(self._uploads)}>"

    def fail(self, operation: str, error: Exception, times: int = 1) -> None:
        """The next `times` calls raise before anything happened."""
        self._faults.setdefault(operation, []).extend([error] * times)

    def lose_answer(self, operation: str, error: Exception, times: int = 1) -> None:
        """The next `times` calls raise although they took effect."""
        self._lost_answers.setdefault(operation, []).extend([error] * times)

    @contextmanager
    def pause(self, operation: str) -> Iterator[Gate]:
        """Inside of it every call of `operation` waits before it takes effect."""
        gate = self._gates[operation] = Gate()
        try:
            yield gate
        finally:
            del self._gates[operation]
            gate.release()

    def data(self, key: str) -> bytes:
        return self._objects[key][1]

    @property
    def keys(self) -> list[str]:
        return sorted(self._objects)

    @property
    def open_uploads(self) -> dict[str, dict[int, bytes]]:
        return {upload_id: dict(upload.parts) for upload_id, upload in self._uploads.items()}

    @property
    def proof(self) -> StoreProof:
        return self._proof

    async def put_object(
        self,
        key: str,
        body: FileRange | bytes,
        *,
        content_type: str,
        metadata: dict[str, str],
        crc64: int,
        if_absent: bool = False,
    ) -> str:
        async with self._step("put_object", key):
            data = _checked(body, crc64)
            if if_absent and key in self._objects:
                return self._same(key, _md5(data), metadata.get(META_STREAM_ID, ""))
            with_crc = {META_CRC64: f"{crc64:016x}", **metadata}
            return self._store(key, data, _md5(data), content_type, with_crc)

    async def begin_upload(self, key: str, *, content_type: str, metadata: dict[str, str]) -> str:
        async with self._step("begin_upload", key):
            upload_id = secrets.token_hex(8)
            self._uploads[upload_id] = _Upload(key, content_type, dict(metadata), self._clock())
            return upload_id

    async def put_part(
        self, key: str, upload_id: str, number: int, body: FileRange, *, crc64: int
    ) -> str:
        async with self._step("put_part", key, number):
            upload = self._upload(key, upload_id)
            data = _checked(body, crc64)
            upload.parts[number] = data
            return _md5(data)

    async def copy_part(
        self, key: str, upload_id: str, number: int, *, source: StoredObject, start: int, end: int
    ) -> str:
        async with self._step("copy_part", key, number):
            upload = self._upload(key, upload_id)
            stored, data = self._objects.get(source.key, (None, b""))
            if stored is None or stored.etag != source.etag:
                raise ProofFailedError(f"{source.key} is not what it was")
            if not 0 <= start < end <= len(data):
                raise PermanentError(f"{source.key} has no bytes {start}-{end - 1}")
            upload.parts[number] = data[start:end]
            return _md5(data[start:end])

    async def list_parts(self, key: str, upload_id: str) -> list[ListedPart]:
        async with self._step("list_parts", key):
            parts = self._upload(key, upload_id).parts
            return [
                ListedPart(number=number, size=len(data), etag=_md5(data))
                for number, data in sorted(parts.items())
            ]

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        crc64: int,
        owner: str = "",
        if_absent: bool = False,
    ) -> str:
        async with self._step("complete_upload", key):
            etag = _multipart_etag([part.etag for part in parts])
            upload = self._uploads.get(upload_id)
            if upload is None or upload.key != key:
                return self._completed_before(key, etag, owner)
            if owner and upload.metadata.get(META_STREAM_ID) != owner:
                raise ProofFailedError(f"{key} is not of {owner}")
            if if_absent and key in self._objects:
                raise KeyTakenError(f"there is a {key}")
            data = self._assembled(upload, parts)
            if crc64nvme(data) != crc64:
                raise ProofFailedError("the whole has another checksum")
            del self._uploads[upload_id]
            return self._store(key, data, etag, upload.content_type, upload.metadata, crc64=crc64)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        async with self._step("abort_upload", key):
            self._uploads.pop(upload_id, None)

    async def list_uploads(self, prefix: str) -> list[OpenUpload]:
        async with self._step("list_uploads", prefix):
            return [
                OpenUpload(key=upload.key, upload_id=upload_id, initiated_at=upload.initiated_at)
                for upload_id, upload in self._uploads.items()
                if upload.key.startswith(prefix)
            ]

    async def head(self, key: str) -> StoredObject | None:
        async with self._step("head", key):
            return self._objects[key][0] if key in self._objects else None

    async def read(
        self, key: str, start: int = 0, end: int | None = None, *, etag: str = ""
    ) -> bytes:
        async with self._step("read", key):
            if key not in self._objects:
                raise PermanentError(f"there is no {key}")
            if etag and self._objects[key][0].etag != etag:
                raise ProofFailedError(f"{key} is not what it was")
            return self._objects[key][1][start:end]

    async def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        async with self._step("list_objects", prefix):
            found = [stored for key, (stored, _) in self._objects.items() if key.startswith(prefix)]
        for stored in sorted(found, key=lambda stored: stored.key):
            yield StoredObject(
                key=stored.key,
                size=stored.size,
                etag=stored.etag,
                modified_at=stored.modified_at,
            )

    async def delete(self, key: str) -> None:
        async with self._step("delete", key):
            self._objects.pop(key, None)

    @asynccontextmanager
    async def _step(self, operation: str, key: str, number: int = 0) -> AsyncIterator[None]:
        """One call: lets others run, as the network would, then fails or waits as told."""
        self.calls[operation] += 1
        self.journal.append(Call(operation, key, number))
        await asyncio.sleep(0)
        if gate := self._gates.get(operation):
            gate.reached.set()
            await gate.opened.wait()
        if faults := self._faults.get(operation):
            raise faults.pop(0)
        yield
        if lost := self._lost_answers.get(operation):
            raise lost.pop(0)

    def _upload(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise UploadGoneError(f"there is no upload {upload_id}")
        return upload

    def _completed_before(self, key: str, etag: str, owner: str) -> str:
        stored = self._objects[key][0] if key in self._objects else None
        if stored is None or stored.etag != etag:
            raise UploadGoneError(f"there is no upload of {key}")
        if owner and stored.metadata.get(META_STREAM_ID) != owner:
            raise UploadGoneError(f"there is no upload of {key}, and {key} is another's")
        return stored.etag

    def _same(self, key: str, etag: str, owner: str) -> str:
        """The answer was lost, and is given again."""
        stored = self._objects[key][0]
        if not owner or (stored.etag, stored.metadata.get(META_STREAM_ID)) != (etag, owner):
            raise KeyTakenError(f"there is a {key}")
        return etag

    def _assembled(self, upload: _Upload, parts: Sequence[Part]) -> bytes:
        numbers = [part.number for part in parts]
        if not numbers or numbers != sorted(set(numbers)):
            raise ProofFailedError("InvalidPartOrder")
        for part in parts:
            data = upload.parts.get(part.number)
            if data is None or _md5(data) != part.etag:
                raise ProofFailedError(f"InvalidPart {part.number}")
            if part is not parts[-1] and len(data) < self._min_part_bytes:
                raise ProofFailedError(f"EntityTooSmall {part.number}")
        return b"".join(upload.parts[number] for number in numbers)

    def _store(
        self,
        key: str,
        data: bytes,
        etag: str,
        content_type: str,
        metadata: dict[str, str],
        *,
        crc64: int | None = None,
    ) -> str:
        stored = StoredObject(
            key=key,
            size=len(data),
            etag=etag,
            crc64=crc64nvme(data) if crc64 is None else crc64,
            modified_at=self._clock(),
            content_type=content_type,
            metadata=dict(metadata),
        )
        self._objects[key] = stored, data
        return etag


def _checked(body: FileRange | bytes, crc64: int) -> bytes:
    data = body if isinstance(body, bytes) else os.pread(body.fd, body.size, body.offset)
    if isinstance(body, FileRange) and len(data) != body.size:
        raise ProofFailedError("the file became shorter while it was sent")
    if crc64nvme(data) != crc64:
        raise ProofFailedError("BadDigest")
    return data


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _multipart_etag(etags: list[str]) -> str:
    joined = b"".join(bytes.fromhex(etag) for etag in etags)
    return f"{_md5(joined)}-{len(etags)}"
