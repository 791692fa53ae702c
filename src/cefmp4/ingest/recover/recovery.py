"""After a restart: which open upload is a file's, and which of its parts can be relied on. S3 and
the disk decide."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import PurePosixPath
from time import time

import structlog

from cefmp4 import metrics
from cefmp4.errors import UploadGoneError
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.recover.bucket_search import BucketContents
from cefmp4.model import names
from cefmp4.model.object import ListedPart, OpenUpload
from cefmp4.model.part import Part, PartPlan, PartRange, infer_plan
from cefmp4.model.stream import Stream
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_and_md5, multipart_etag
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import sample
from cefmp4.retry import patiently

log = structlog.get_logger()

MAX_NAMELESS = 64  # uploads of other names that are compared with one file


@dataclass(slots=True, kw_only=True)
class Recovery:
    """`plan`: how files are cut today; they may have been cut otherwise before."""

    store: ObjectStore
    hashing: Executor
    plan: PartPlan

    # For a Redis that was emptied.

    async def take_upload(
        self, contents: BucketContents, source: SourceFile
    ) -> tuple[OpenUpload, PartPlan] | None:
        """Finds one that has parts of this file, whatever it is called now, and takes it out of the
        contents. Files are looked up side by side: another may have taken it while we compared."""
        while (found := await self._find_upload(contents, source)) is not None:
            if found[0] in contents.uploads:
                contents.uploads.remove(found[0])
                break
        return found

    async def _find_upload(
        self, contents: BucketContents, source: SourceFile
    ) -> tuple[OpenUpload, PartPlan] | None:
        """One without parts is as good as none, and may be anybody's of that name."""
        filename = PurePosixPath(source.relpath).name
        digests: dict[PartRange, str] = {}  # most uploads are cut alike: each is read once
        empty: tuple[OpenUpload, PartPlan] | None = None
        for upload in _candidates(contents, filename):
            if upload.upload_id not in contents.parts:
                contents.parts[upload.upload_id] = await self._parts_of(upload) or []
            listed = contents.parts[upload.upload_id]
            if not listed:
                is_named = names.bears_name(upload.key, filename)
                empty = (upload, self.plan) if is_named and upload.is_ours else empty
                continue
            plan = infer_plan(listed, self.plan)
            if plan is not None and await self._holds(source, listed, plan, digests):
                return upload, plan
        return empty

    async def _holds(
        self,
        source: SourceFile,
        listed: list[ListedPart],
        plan: PartPlan,
        digests: dict[PartRange, str],
    ) -> bool:
        """A writer patches one part or another, so one that is the same tells the file. All of
        them are compared once it is taken up."""
        parts = {part.number: part for part in listed}
        for number in sample(sorted(parts)):
            place = plan.place_of(parts[number])
            if place not in digests:
                _, digests[place] = await self._read(source, place) or (0, "")
            if digests[place] == parts[number].etag:
                return True
        return False

    # For a stream that has a record.

    async def resume(self, record: StreamRecord, source: SourceFile) -> None:
        """Makes the record say what the store really holds of this stream: parts, or all of it."""
        stream = record.stream
        uploads = await self._uploads_of(stream)
        upload = max(
            uploads,
            key=lambda upload: (upload.upload_id == stream.upload_id, upload.initiated_at),
            default=None,
        )
        for other in uploads:
            if other is not upload:  # begun just before a crash, and never written down
                await self._abort(other)
        if upload is None:
            if not await self._is_made(record):  # see was_completed
                await record.upload_gone(sent_high=stream.sent_high)
            return
        if upload.upload_id != stream.upload_id:
            await record.opened(upload.upload_id)
        listed = await self._parts_of(upload)
        if listed is not None:  # else the first use of it will tell, and start over
            await self._reconcile(record, source, {part.number: part for part in listed})

    async def _abort(self, upload: OpenUpload) -> None:
        log.info("aborting a second upload of the same stream", key=upload.key)
        await patiently(
            lambda: self.store.abort_upload(upload.key, upload.upload_id), what="upload abort"
        )

    async def was_completed(self, record: StreamRecord) -> bool:
        """The crash may have come between the completion, which is asked for what is proven and
        nothing else, and its checkpoint. Then the object is there, and the record says so now,
        whatever has become of the file since: nobody else would ever tell of that object."""
        return not await self._uploads_of(record.stream) and await self._is_made(record)

    async def _uploads_of(self, stream: Stream) -> list[OpenUpload]:
        uploads = await patiently(
            lambda: self.store.list_uploads(stream.key), what="upload listing"
        )
        uploads = [upload for upload in uploads if upload.key == stream.key]
        if names.stream_id_in(stream.key) != stream.id:  # others may upload to such a key, too
            uploads = [upload for upload in uploads if upload.upload_id == stream.upload_id]
        return uploads

    async def _is_made(self, record: StreamRecord) -> bool:
        stream = record.stream
        parts = [record.parts[number] for number in sorted(record.parts)]
        if not (stream.upload_id and stream.stamp and parts and self.store.proof.etag_is_md5):
            return False
        stored = await patiently(lambda: self.store.head(stream.key), what="object check")
        if stored is None or stored.etag != multipart_etag(part.etag for part in parts):
            return False
        owner = stored.metadata.get(names.META_STREAM_ID)
        if not (owner == stream.id or stream.is_adopted or not self.store.proof.keeps_metadata):
            return False
        log.info("it was completed just before the crash", key=stream.key)
        await record.was_made(stored.etag, stream.stamp)
        metrics.stream_stored(record.stream)
        return True

    async def _reconcile(
        self, record: StreamRecord, source: SourceFile, listed: dict[int, ListedPart]
    ) -> None:
        """Listings may have holes and checkpoints may lag: only what both agree on is kept, and
        what only the store knows is compared with the disk before it is believed."""
        wrong = [
            number
            for number, part in record.parts.items()
            if number not in listed
            or (listed[number].size, listed[number].etag) != (part.size, part.etag)
        ]
        await record.drop_parts(wrong)
        unknown = [part for number, part in listed.items() if number not in record.parts]
        adopted = 0
        for part in unknown:
            adopted += await self._adopt(record, source, part)
        log.info(
            "resumed the upload",
            parts=len(record.parts),
            adopted=adopted,
            distrusted=len(wrong) + len(unknown) - adopted,
        )

    async def _adopt(self, record: StreamRecord, source: SourceFile, part: ListedPart) -> bool:
        if not self.store.proof.etag_is_md5:
            return False
        place = record.stream.plan.place_of(part)
        if part.size > place.size:
            return False
        found = await self._read(source, place)
        if found is None or found[1] != part.etag:
            return False
        await record.part_stored(
            Part(
                number=part.number,
                size=part.size,
                crc64=found[0],
                etag=part.etag,
                uploaded_at=time(),
            )
        )
        return True

    async def _parts_of(self, upload: OpenUpload) -> list[ListedPart] | None:
        """None: it is gone."""
        try:
            return await patiently(
                lambda: self.store.list_parts(upload.key, upload.upload_id), what="part listing"
            )
        except UploadGoneError:
            return None

    async def _read(self, source: SourceFile, place: PartRange) -> tuple[int, str] | None:
        """See crc_and_md5."""
        return await asyncio.get_running_loop().run_in_executor(
            self.hashing, crc_and_md5, source.fd, place.start, place.end
        )


def _candidates(contents: BucketContents, filename: str) -> list[OpenUpload]:
    """Those of this name first. A file that was renamed in mid-upload has one of another name; of
    those only the ones whose key shows that they are ours, and so many that a look at each file
    stays short."""
    named, others = [], []
    for upload in contents.uploads:
        if names.bears_name(upload.key, filename):
            named.append(upload)
        elif upload.is_ours:
            others.append(upload)
    others.sort(key=lambda upload: -upload.initiated_at)
    return named + others[:MAX_NAMELESS]
