"""Finds again in S3 what an emptied Redis no longer knows: stored files and open uploads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar

import structlog

from cefmp4.ingest.recover.bucket_contents import BucketContents, infer_plan
from cefmp4.ingest.recover.upload_search import UploadSearch
from cefmp4.metadata.document import DocumentFacts, parse_document, path_text
from cefmp4.model import names
from cefmp4.model.folder import NAMELESS, WatchedFolder
from cefmp4.model.object import OpenUpload, StoredObject
from cefmp4.model.part import MAX_PART_BYTES, MIN_PART_BYTES, Part, PartPlan, PartRange, PartSizing
from cefmp4.model.stream import FileStamp, Stream, StreamState
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


@dataclass(frozen=True, slots=True)
class Found:
    """A stream whose object is there; `parts` are known where its document tells them."""

    stream: Stream
    parts: dict[int, Part] = field(default_factory=dict)


class BucketSearch:
    """`plan`: how files are cut today; they may have been cut otherwise before. What is of another
    `folder` is never taken for ours, though it has the same names and bytes."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        prefix: str,
        hashing: Executor,
        plan: PartPlan,
        folder: WatchedFolder = NAMELESS,
        host: str = "",
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._hashing = hashing
        self._plan = plan
        self._uploads = UploadSearch(store=store, hashing=hashing, plan=plan)
        self._folder = folder
        self._host = host
        self._contents: BucketContents | None = None

    @property
    def contents(self) -> BucketContents | None:
        """While Redis has forgotten what S3 knows."""
        return self._contents

    def begin(self, contents: BucketContents) -> None:
        """From now on, files are looked for in these."""
        self._contents = contents

    def end(self) -> None:
        self._contents = None

    async def take(self) -> BucketContents:
        contents = BucketContents()
        async for stored in self._store.list_objects(self._prefix):
            contents.keys.add(stored.key)
            if not names.is_own_key(stored.key) and self._folder.may_own(stored.key):
                contents.objects[stored.size].append(stored)
        uploads = await patiently(
            lambda: self._store.list_uploads(self._prefix), what="upload listing"
        )
        contents.uploads = [upload for upload in uploads if self._folder.may_own(upload.key)]
        log.info(
            "Redis remembers nothing: looking for our objects in S3",
            objects=len(contents.keys),
            uploads=len(contents.uploads),
        )
        return contents

    async def find_stored(
        self, contents: BucketContents, source: SourceFile, stamp: FileStamp
    ) -> Found | None:
        """The stream whose object holds exactly these bytes, and is no other file's, or None."""
        filename = PurePosixPath(source.relpath).name
        local_crc: int | None = None
        for stored in contents.objects_like(filename, stamp.size):
            if local_crc is None:
                try:
                    local_crc = await self._in_thread(hash_range, source.fd, 0, stamp.size)
                except ShortFileError:
                    return None
            stream = await self._compare(contents, stored, source, stamp, local_crc)
            if stream is not None and contents.take_object(stored, source.relpath):
                return stream
        return None

    async def _compare(
        self,
        contents: BucketContents,
        stored: StoredObject,
        source: SourceFile,
        stamp: FileStamp,
        local_crc: int,
    ) -> Found | None:
        document_key = names.metadata_key(stored.key)
        facts = None
        if document_key in contents.keys:
            facts = parse_document(await self._read(document_key))
        if facts is not None and facts.etag == stored.etag:
            if facts.crc64 != local_crc or not self._folder.is_called(facts.folder):
                return None
            if await asyncio.to_thread(_is_of_another_file, facts, source):
                return None
            return self._described(stored, source.relpath, stamp, facts)
        head = await patiently(lambda: self._store.head(stored.key), what="object check")
        if head is None or not self._folder.is_called(head.metadata.get(names.META_FOLDER, "")):
            return None
        if not await self._is_same(head, source, stamp, local_crc):
            return None
        stream_id = head.metadata.get(names.META_STREAM_ID, "")
        if not stream_id and self._store.proof.keeps_metadata:
            return None  # somebody else put it there: nothing of ours belongs beside it
        plan = _plan_in(head.metadata) or self._plan
        return Found(self._stream_of(head, plan, source.relpath, stamp, stream_id, local_crc))

    async def read_content(self, stream: Stream, source: SourceFile) -> Found:
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
                return Found(stream)
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
        return Found(known, parts if etag == stream.etag else {})

    async def read_stream(self, relpath: str, key: str, stamp: FileStamp) -> Found | None:
        """A finished stream as its document in S3 tells it. Nobody looks at the file here: `stamp`
        is what was remembered of the proven bytes, and is only worth as much as that."""
        stored = await patiently(lambda: self._store.head(key), what="object check")
        if stored is None or stored.size != stamp.size:
            return None
        facts = parse_document(await self._read(names.metadata_key(key)))
        if facts is None or (facts.etag, facts.size) != (stored.etag, stamp.size):
            return None  # another object lies under this key by now
        return self._described(stored, relpath, stamp, facts)

    def _described(
        self, stored: StoredObject, relpath: str, stamp: FileStamp, facts: DocumentFacts
    ) -> Found:
        """A listing does not tell the user metadata, but the document tells the parts."""
        plan = infer_plan(facts.parts, self._plan) or self._plan
        stream = replace(
            self._stream_of(stored, plan, relpath, stamp, facts.stream_id, facts.crc64),
            state=StreamState.DESCRIBED,
            generation=facts.generation,
            previous_id=facts.previous_stream_id,
            sha256=facts.sha256,
            playable=facts.playable,
            started_at=facts.started_at,
            completed_at=facts.completed_at,
        )
        return Found(stream, {part.number: part for part in facts.parts})

    def _stream_of(
        self,
        stored: StoredObject,
        plan: PartPlan,
        relpath: str,
        stamp: FileStamp,
        stream_id: str,
        crc64: int,
    ) -> Stream:
        return Stream(
            id=stream_id
            or names.stream_id_in(stored.key)
            or names.new_stream_id(stored.modified_at),
            relpath=relpath,
            folder=self._folder.id,
            state=StreamState.STORED,
            key=stored.key,
            part_base=plan.base,
            part_sizing=plan.sizing,
            size=stamp.size,
            stamp=stamp,
            crc64=crc64,
            etag=stored.etag,
            started_at=stored.modified_at,
            completed_at=stored.modified_at,
            host=self._host,
        )

    async def _is_same(
        self, head: StoredObject, source: SourceFile, stamp: FileStamp, local_crc: int
    ) -> bool:
        if head.crc64 is not None:
            return head.crc64 == local_crc
        plan = _plan_in(head.metadata)
        if plan is None or not self._store.proof.etag_is_md5 or stamp.size == 0:
            return False
        etags = []
        for cut in plan.ranges_for(stamp.size):
            found = await self._in_thread(crc_and_md5, source.fd, cut.start, cut.end)
            if found is None:
                return False
            etags.append(found[1])
        return multipart_etag(etags) == head.etag

    async def take_upload(
        self, contents: BucketContents, source: SourceFile
    ) -> tuple[OpenUpload, PartPlan] | None:
        """An open upload whose parts hold this file's bytes, taken out of the contents."""
        return await self._uploads.take(contents, source)

    async def _in_thread(self, read: Callable[..., T], *words: int) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._hashing, read, *words)

    async def _read(self, key: str) -> bytes:
        return await patiently(lambda: self._store.read(key), what="metadata reading")


def _is_of_another_file(facts: DocumentFacts, source: SourceFile) -> bool:
    """Whether the file that the object was made of is there still, under another name than this
    one. Blocking."""
    if facts.path == path_text(source.relpath):
        return False
    try:
        return look_up(source.root, facts.path).st_size == facts.size
    except (OSError, ValueError):
        return False


def _plan_in(metadata: dict[str, str]) -> PartPlan | None:
    try:
        base = int(metadata[names.META_PART_BASE])
        sizing = PartSizing(metadata[names.META_PART_SIZING])
    except (KeyError, ValueError):
        return None
    return PartPlan(base, sizing) if MIN_PART_BYTES <= base <= MAX_PART_BYTES else None
