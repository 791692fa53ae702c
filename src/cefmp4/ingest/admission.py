"""From a path to a stream one may work on: known, new, resumed, a new generation, or somebody's."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from cefmp4.errors import SourceError
from cefmp4.ingest.admitted import Admitted, FormerGeneration
from cefmp4.ingest.claims import Claims, ForeignStreamError
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.object_keys import KeyRefusedError, ObjectKeys
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.recover.bucket_search import BucketContents, BucketSearch
from cefmp4.ingest.recover.recovery import Recovery
from cefmp4.model import names
from cefmp4.model.part import PartPlan, plan_for
from cefmp4.model.stream import FileStamp, StoredStream, Stream, StreamState
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import Identity
from cefmp4.retry import patiently
from cefmp4.watch.downloads import is_being_downloaded

log = structlog.get_logger()

# A file that was quiet for so long when first seen is no recording any more, most likely. Where
# clocks were set and it is one, its parts are bigger than need be, and nothing else.
BACKLOG_AGE_S = 10.0


@dataclass(slots=True, kw_only=True)
class Admission:
    """`plan`: how files are cut today; `place`: device and inode of the folder that was
    identified."""

    root: str
    host: str
    plan: PartPlan
    keys: ObjectKeys
    index: FinishedIndex
    claims: Claims
    store: ObjectStore
    recovery: Recovery
    bucket_search: BucketSearch
    identity: Identity
    place: tuple[int, int]
    _renaming: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def admit(
        self, relpath: str, is_at_work: Callable[[str], bool] = lambda _: False
    ) -> Admitted | None:
        """None: nothing to do (finished, gone, still being downloaded). Raises SourceError for what
        cannot be read, and ForeignStreamError. `is_at_work` tells of a stream id whether we are on
        it already: its file was renamed, and the record does not know yet."""
        try:
            source = await asyncio.to_thread(SourceFile.open, self.root, relpath)
        except FileNotFoundError:
            return None
        with ExitStack() as closing:
            closing.enter_context(source)
            if source.home.root != self.place:
                raise ForeignStreamError  # of another folder, mounted there just now
            if await asyncio.to_thread(is_being_downloaded, self.root, relpath):
                return None  # the end of its control file is an event
            admitted = await self._admit_open(source, source.stamp(), is_at_work)
            if admitted is not None:
                closing.pop_all()
            return admitted

    async def _admit_open(
        self, source: SourceFile, stamp: FileStamp, is_at_work: Callable[[str], bool]
    ) -> Admitted | None:
        if self.index.has(source.relpath, stamp) or await self._was_renamed(source, stamp):
            return None
        known = await self.claims.load_at(source.relpath)
        contents = self.bucket_search.contents
        if known is None and contents is not None:
            return await self._recognise(source, stamp, contents)
        if known is None:
            if await self.claims.is_fresh():
                raise ForeignStreamError  # forgotten, perhaps: the survey of the store will tell
            return await self._begin(source, stamp)
        if is_at_work(known.id):
            raise ForeignStreamError
        if not known.is_final:
            # Where it is stored, whatever the file holds now: first that object gets its document.
            return await self._resume(known, source)
        is_unchanged = known.stamp is not None and known.stamp.is_unchanged(stamp)
        if is_unchanged and not known.may_start_again:
            self.index.add(known)
            return None
        return await self._begin(source, stamp, previous=known)

    async def _was_renamed(self, source: SourceFile, stamp: FileStamp) -> bool:
        """A finished file under a new name keeps its object and its stream."""
        candidates = self.index.former_paths_of(stamp)
        if source.relpath in candidates:
            return False
        for former_path in candidates:
            if await self._was_at(former_path, source, stamp):
                return True
        return False

    async def _was_at(self, former_path: str, source: SourceFile, stamp: FileStamp) -> bool:
        former = self.index.get(former_path)
        if former is None or await asyncio.to_thread(
            _is_in_place, self.root, former_path, former.stamp, stamp
        ):
            return False  # a hard link, or a copy: a file of its own
        stream = await self.claims.load(former.stream_id)
        if stream is None or not stream.is_proven:
            return False
        load_parts = partial(self.claims.load_parts, stream.id)
        if not await self.identity.is_file_of(source, stamp, stream, load_parts):
            self.index.remove(former_path)  # its file is gone, and another has its inode
            return False
        async with self._renaming:  # two names that it had lately may be looked at side by side
            if not await asyncio.to_thread(_is_in_place, self.root, source.relpath, stamp, stamp):
                return True  # renamed again: whoever comes by its next name writes that down
            if self.index.get(former_path) is former:
                return await self._renamed(stream, source, stamp, former_path)
        return await self._was_renamed(source, stamp)

    async def _renamed(
        self, stream: Stream, source: SourceFile, stamp: FileStamp, former_path: str
    ) -> bool:
        written = await self.claims.write(stream.found_at(source.relpath, stamp))
        if written is None:
            return False
        self.index.remove(former_path)
        self.index.add(written)
        log.info("a finished file was renamed", file_path=source.relpath, former=former_path)
        return True

    async def _begin(
        self, source: SourceFile, stamp: FileStamp, previous: Stream | None = None
    ) -> Admitted | None:
        now = self.claims.wall_clock()
        former = await self._former_of(previous) if previous else None
        if former is not None:  # cut alike, so that unchanged parts can be copied
            plan = former.stream.plan
        else:
            is_backlog = now - stamp.ctime_ns / 1e9 >= BACKLOG_AGE_S
            plan = plan_for(stamp.size, self.plan.base, self.plan.sizing, is_backlog=is_backlog)
        stream_id = names.new_stream_id(now, self.claims.folder)
        key = self.keys.wanted_by(stream_id, source.relpath, started_at=now, host=self.host)
        stream = replace(
            self._stream(stream_id, source.relpath, stamp, plan, key=key, started_at=now),
            generation=previous.generation + 1 if previous else 1,
            previous_id=previous.id if previous else None,
        )
        record = await self.claims.new(stream, {})
        try:
            await self.keys.settle(record)
        except KeyRefusedError as error:
            await self._refuse(record, str(error))
            return None
        return Admitted(record=record, source=source, former=former, is_new=True)

    def _stream(
        self,
        stream_id: str,
        relpath: str,
        stamp: FileStamp,
        plan: PartPlan,
        *,
        key: str,
        started_at: float,
    ) -> Stream:
        return Stream(
            id=stream_id,
            relpath=relpath,
            folder=self.claims.folder,
            key=key,
            part_base=plan.base,
            part_sizing=plan.sizing,
            size=stamp.size,
            stamp=stamp,
            started_at=started_at,
            host=self.host,
        )

    async def _refuse(self, record: StreamRecord, reason: str) -> None:
        """A stream that fails before it begins: seen by people, and not tried again by itself."""
        await record.failed(reason)
        self.index.add(record.stream)
        await record.release()

    async def _former_of(self, previous: Stream) -> FormerGeneration | None:
        if not previous.is_proven:
            return None
        parts = await self.claims.load_parts(previous.id)
        stored = await patiently(lambda: self.store.head(previous.key), what="object check")
        if stored is None or (stored.size, stored.etag) != (previous.size, previous.etag):
            return None
        return FormerGeneration(stored=stored, stream=previous, parts=parts)

    async def _resume(self, stream: Stream, source: SourceFile) -> Admitted:
        record = await self.claims.latest(stream)
        if record.stream.is_proven:
            return Admitted(record=record, source=source)
        await self.recovery.resume(record, source)
        previous = await self.claims.load(record.stream.previous_id)
        former = await self._former_of(previous) if previous else None
        return Admitted(record=record, source=source, former=former)

    async def _recognise(
        self, source: SourceFile, stamp: FileStamp, contents: BucketContents
    ) -> Admitted | None:
        """Redis was emptied: the object or the open upload of this file may be in S3 already."""
        stored = await self.bucket_search.find_stored(contents, source, stamp)
        if stored is not None:
            return await self._take_up(stored, source)
        found = await self.recovery.take_upload(contents, source)
        if found is None:
            return await self._begin(source, stamp)
        upload, plan = found
        stream_id = names.stream_id_in(upload.key)
        if await self.claims.load(stream_id) is not None:  # another instance began it meanwhile
            return await self._recognise(source, stamp, contents)
        now = self.claims.wall_clock()
        stream = replace(
            self._stream(
                stream_id or names.new_stream_id(now, self.claims.folder),
                source.relpath,
                stamp,
                plan,
                key=upload.key,
                started_at=upload.initiated_at or now,
            ),
            state=StreamState.UPLOADING,
            upload_id=upload.upload_id,
            is_adopted=stream_id is None,
        )
        record = await self.claims.new(stream, {})
        await record.save()
        await self.recovery.resume(record, source)
        log.info("adopted an open upload", file_path=source.relpath, parts=len(record.parts))
        return Admitted(record=record, source=source)

    async def _take_up(self, found: StoredStream, source: SourceFile) -> Admitted:
        record = await self.claims.new(found.stream, found.parts)
        await record.restore()
        log.info("recognised a stored file", file_path=source.relpath, key=found.stream.key)
        return Admitted(record=record, source=source)


def _is_in_place(root: str, relpath: str, then: FileStamp, elsewhere: FileStamp) -> bool:
    """Whether the name still leads to the file that was finished there: to the very one that has
    another name as well, or to one that nobody has changed. Blocking."""
    try:
        with SourceFile.open(root, relpath) as source:
            now = source.stamp()
    except (FileNotFoundError, SourceError):
        return False
    return (now.device, now.inode) == (elsewhere.device, elsewhere.inode) or then.is_unchanged(now)
