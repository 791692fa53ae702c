"""Finds again in S3 the stored files that an emptied Redis no longer knows."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar

import structlog

from cefmp4.metadata.document import path_text, read_document
from cefmp4.model import names
from cefmp4.model.folder import NAMELESS, WatchedFolder
from cefmp4.model.object import ListedPart, OpenUpload, StoredObject
from cefmp4.model.part import Part, PartPlan, PartRange, plan_noted_in
from cefmp4.model.stream import FileStamp, StoredStream, Stream, StreamState
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.beneath import look_up
from cefmp4.recording.digests import (
    ShortFileError,
    crc_and_md5,
    hash_range,
    multipart_etag,
    new_sha256,
)
from cefmp4.recording.file import SourceFile
from cefmp4.retry import patiently

log = structlog.get_logger()
T = TypeVar("T")

MAX_CANDIDATES = 32  # objects of the same size that are compared with one file


@dataclass(slots=True)
class BucketContents:
    """What lies under our prefix, as a survey found it."""

    objects: dict[int, list[StoredObject]] = field(default_factory=lambda: defaultdict(list))
    uploads: list[OpenUpload] = field(default_factory=list)
    parts: dict[str, list[ListedPart]] = field(default_factory=dict)  # of uploads, once asked for
    keys: set[str] = field(default_factory=set)
    _taken: dict[str, str] = field(default_factory=dict)  # object key -> path of its file

    @property
    def is_empty(self) -> bool:
        return not self.objects and not self.uploads

    def leave_to(self, streams: Sequence[Stream]) -> None:
        """What has a record is nobody else's: a survey that a crash cut off begins again beside
        the records that it had written."""
        claimed = {stream.key: stream.relpath for stream in streams if stream.key}
        self.uploads = [upload for upload in self.uploads if upload.key not in claimed]
        self._taken |= claimed

    def objects_like(self, filename: str, size: int) -> list[StoredObject]:
        """Those of the same size, best guess first."""
        same_size = sorted(
            self.objects.get(size, ()),
            key=lambda stored: (not names.bears_name(stored.key, filename), -stored.modified_at),
        )
        return same_size[:MAX_CANDIDATES]

    def take_object(self, key: str, relpath: str) -> bool:
        """Whether the object is this file's: files of the same bytes have one each."""
        return self._taken.setdefault(key, relpath) == relpath


@dataclass(slots=True, kw_only=True)
class BucketSearch:
    """`plan`: how files are cut today; they may have been cut otherwise before. What is of another
    `folder` is never taken for ours, though it has the same names and bytes."""

    store: ObjectStore
    prefix: str
    hashing: Executor
    plan: PartPlan
    folder: WatchedFolder = NAMELESS
    host: str = ""
    # While Redis has forgotten what S3 knows.
    contents: BucketContents | None = field(default=None, init=False)

    async def take(self) -> BucketContents:
        contents = BucketContents()
        async for stored in self.store.list_objects(self.prefix):
            contents.keys.add(stored.key)
            if not names.is_own_key(stored.key) and self.folder.may_own(stored.key):
                contents.objects[stored.size].append(stored)
        uploads = await patiently(
            lambda: self.store.list_uploads(self.prefix), what="upload listing"
        )
        contents.uploads = [upload for upload in uploads if self.folder.may_own(upload.key)]
        log.info(
            "Redis remembers nothing: looking for our objects in S3",
            objects=len(contents.keys),
            uploads=len(contents.uploads),
        )
        return contents

    async def find_stored(
        self, contents: BucketContents, source: SourceFile, stamp: FileStamp
    ) -> StoredStream | None:
        """The stream whose object holds exactly these bytes, and is no other file's, or None. Where
        its document is missing, what that tells of the bytes is read once more."""
        alike = contents.objects_like(PurePosixPath(source.relpath).name, stamp.size)
        if not alike:
            return None
        try:
            crc64 = await self._in_thread(hash_range, source.fd, 0, stamp.size)
        except ShortFileError:
            return None
        for stored in alike:
            has_document = names.metadata_key(stored.key) in contents.keys
            found = await self._compare(stored, has_document, source, stamp, crc64)
            if found is not None and contents.take_object(stored.key, source.relpath):
                is_described = found.stream.state is StreamState.DESCRIBED
                return found if is_described else await self._read_content(found.stream, source)
        return None

    async def _compare(
        self,
        stored: StoredObject,
        has_document: bool,
        source: SourceFile,
        stamp: FileStamp,
        crc64: int,
    ) -> StoredStream | None:
        """A listing does not tell the user metadata, but the document tells the parts."""
        found = await read_document(self.store, stored.key, self.plan) if has_document else None
        if found is not None and found.stream.etag == stored.etag:
            if found.stream.crc64 != crc64 or not self.folder.is_called(found.stream.folder):
                return None
            if await asyncio.to_thread(_is_of_another_file, found.stream, source):
                return None
            return self._placed(found, stored.key, source.relpath, stamp)
        head = await patiently(lambda: self.store.head(stored.key), what="object check")
        if head is None or not self.folder.is_called(head.metadata.get(names.META_FOLDER, "")):
            return None
        if not await self._is_same(head, source, stamp, crc64):
            return None
        stream_id = head.metadata.get(names.META_STREAM_ID, "")
        if not stream_id and self.store.proof.keeps_metadata:
            return None  # somebody else put it there: nothing of ours belongs beside it
        plan = plan_noted_in(head.metadata) or self.plan
        stream = Stream(
            id=stream_id or names.stream_id_in(head.key) or names.new_stream_id(head.modified_at),
            relpath=source.relpath,
            state=StreamState.STORED,
            part_base=plan.base,
            part_sizing=plan.sizing,
            crc64=crc64,
            etag=head.etag,
            started_at=head.modified_at,
            completed_at=head.modified_at,
        )
        return self._placed(StoredStream(stream), head.key, source.relpath, stamp)

    def _placed(
        self, found: StoredStream, key: str, relpath: str, stamp: FileStamp
    ) -> StoredStream:
        """Under this key, of this file."""
        stream = replace(
            found.stream,
            relpath=relpath,
            folder=self.folder.id,
            key=key,
            size=stamp.size,
            stamp=stamp,
            host=self.host,
        )
        return replace(found, stream=stream)

    async def _read_content(self, stream: Stream, source: SourceFile) -> StoredStream:
        """Reads a stored file again for what its lost record knew: the SHA-256 and the parts, which
        stay unknown where they do not make up the ETag of the object."""
        whole = new_sha256()
        is_single = "-" not in stream.etag
        cuts = [PartRange(1, 0, stream.size)] if is_single else stream.plan.ranges_for(stream.size)
        parts: dict[int, Part] = {}
        for cut in cuts if stream.size else ():
            found = await self._in_thread(
                partial(crc_and_md5, source.fd, cut.start, cut.end, also=(whole,))
            )
            if found is None:
                return StoredStream(stream)
            parts[cut.number] = Part(
                number=cut.number,
                size=cut.size,
                crc64=found[0],
                etag=found[1],
                uploaded_at=stream.completed_at,
            )
        known = replace(stream, sha256=whole.hexdigest())
        etags = [part.etag for part in parts.values()]
        etag = etags[0] if is_single and etags else multipart_etag(etags)
        return StoredStream(known, parts if etag == stream.etag else {})

    async def read_stream(self, relpath: str, key: str, stamp: FileStamp) -> StoredStream | None:
        """A finished stream as its document in S3 tells it. Nobody looks at the file here: `stamp`
        is what was remembered of the proven bytes, and is only worth as much as that."""
        stored = await patiently(lambda: self.store.head(key), what="object check")
        if stored is None or stored.size != stamp.size:
            return None
        found = await read_document(self.store, key, self.plan)
        if found is None or (found.stream.etag, found.stream.size) != (stored.etag, stamp.size):
            return None  # another object lies under this key by now
        return self._placed(found, key, relpath, stamp)

    async def _is_same(
        self, head: StoredObject, source: SourceFile, stamp: FileStamp, crc64: int
    ) -> bool:
        if head.crc64 is not None:
            return head.crc64 == crc64
        plan = plan_noted_in(head.metadata)
        if plan is None or not self.store.proof.etag_is_md5 or stamp.size == 0:
            return False
        etags = []
        for cut in plan.ranges_for(stamp.size):
            found = await self._in_thread(crc_and_md5, source.fd, cut.start, cut.end)
            if found is None:
                return False
            etags.append(found[1])
        return multipart_etag(etags) == head.etag

    async def _in_thread(self, read: Callable[..., T], *words: int) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.hashing, read, *words)


def _is_of_another_file(stream: Stream, source: SourceFile) -> bool:
    """Whether the file that the object was made of is there still, under another name than this
    one. Blocking."""
    if stream.relpath == path_text(source.relpath):
        return False
    try:
        return look_up(source.root, stream.relpath).st_size == stream.size
    except (OSError, ValueError):
        return False
