"""Which open upload holds the parts of a file: by their bytes, whatever the file is called now."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import PurePosixPath

from cefmp4.errors import UploadGoneError
from cefmp4.ingest.recover.bucket_contents import BucketContents, infer_plan
from cefmp4.model import names
from cefmp4.model.object import ListedPart, OpenUpload
from cefmp4.model.part import PartPlan
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_and_md5
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import sample
from cefmp4.retry import patiently

MAX_NAMELESS = 64  # uploads of other names that are compared with one file


class UploadSearch:
    """`plan`: how files are cut today; they may have been cut otherwise before."""

    def __init__(self, *, store: ObjectStore, hashing: Executor, plan: PartPlan) -> None:
        self._store = store
        self._hashing = hashing
        self._plan = plan

    async def take(
        self, contents: BucketContents, source: SourceFile
    ) -> tuple[OpenUpload, PartPlan] | None:
        """Finds one and takes it out of the contents. Files are looked up side by side: another
        may have taken it while we compared."""
        while True:
            found = await self._find(contents, source)
            if found is None:
                return None
            if found[0] in contents.uploads:
                contents.uploads.remove(found[0])
                return found

    async def _find(
        self, contents: BucketContents, source: SourceFile
    ) -> tuple[OpenUpload, PartPlan] | None:
        """One without parts is as good as none, and may be anybody's of that name."""
        filename = PurePosixPath(source.relpath).name
        digests: dict[tuple[int, int], str] = {}  # most uploads are cut alike: each is read once
        empty: tuple[OpenUpload, PartPlan] | None = None
        for upload, is_named in _candidates(contents, filename):
            listed = await self._parts_of(contents, upload)
            if not listed:
                is_ours = names.stream_id_in(upload.key)  # else it may be of somebody else
                empty = (upload, self._plan) if is_named and is_ours else empty
                continue
            plan = infer_plan(listed, self._plan)
            if plan is not None and await self._holds(source, listed, plan, digests):
                return upload, plan
        return empty

    async def _parts_of(self, contents: BucketContents, upload: OpenUpload) -> list[ListedPart]:
        if upload.upload_id not in contents.parts:
            try:
                listed = await patiently(
                    lambda: self._store.list_parts(upload.key, upload.upload_id),
                    what="part listing",
                )
            except UploadGoneError:
                listed = []
            contents.parts[upload.upload_id] = listed
        return contents.parts[upload.upload_id]

    async def _holds(
        self,
        source: SourceFile,
        listed: list[ListedPart],
        plan: PartPlan,
        digests: dict[tuple[int, int], str],
    ) -> bool:
        """A writer patches one part or another, so one that is the same tells the file. All of
        them are compared once it is taken up."""
        parts = {part.number: part for part in listed}
        for number in sample(sorted(parts)):
            start = plan.range_of(number).start
            place = (start, start + parts[number].size)
            if place not in digests:
                digests[place] = await self._md5(source, *place)
            if digests[place] == parts[number].etag:
                return True
        return False

    async def _md5(self, source: SourceFile, start: int, end: int) -> str:
        """Empty where the file is shorter than that."""

        found = await asyncio.get_running_loop().run_in_executor(
            self._hashing, crc_and_md5, source.fd, start, end
        )
        return "" if found is None else found[1]


def _candidates(contents: BucketContents, filename: str) -> Iterator[tuple[OpenUpload, bool]]:
    """Those of this name first. A file that was renamed in mid-upload has one of another name; of
    those only the ones whose key shows that they are ours, and so many that a look at each file
    stays short."""
    is_named = {
        upload.upload_id: names.bears_name(upload.key, filename) for upload in contents.uploads
    }
    named = [upload for upload in contents.uploads if is_named[upload.upload_id]]
    others = [
        upload
        for upload in contents.uploads
        if not is_named[upload.upload_id] and names.stream_id_in(upload.key)
    ]
    others.sort(key=lambda upload: -upload.initiated_at)
    yield from ((upload, True) for upload in named)
    yield from ((upload, False) for upload in others[:MAX_NAMELESS])
