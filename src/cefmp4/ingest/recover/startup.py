"""Picks up where the last run stopped: what Redis remembers, compared with the folder."""

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from cefmp4 import metrics
from cefmp4.errors import CefError, PermanentError, SourceError
from cefmp4.ingest.after.completion import Completion
from cefmp4.ingest.claims import Claims, ForeignStreamError
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.recover.bucket_search import BucketSearch
from cefmp4.ingest.recover.recovery import Recovery
from cefmp4.ingest.uploader import Uploader
from cefmp4.model.folder import WatchedFolder
from cefmp4.model.stream import FileStamp, Stream
from cefmp4.recording.beneath import look_up
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import Identity
from cefmp4.retry import patiently
from cefmp4.tasks import each

log = structlog.get_logger()

RESTORES_AT_ONCE = 8
ENDS_AT_ONCE = 8  # each waits for several answers, and the start waits for all of them


@dataclass(slots=True, kw_only=True)
class Startup:
    root: str
    folder: WatchedFolder
    index: FinishedIndex
    claims: Claims
    bucket_search: BucketSearch
    identity: Identity
    recovery: Recovery
    uploader: Uploader
    completion: Completion
    _first_restored: Stream | None = field(default=None, init=False)
    # Not at their end, and not looked for yet, or their files cannot be seen now.
    unplaced: list[Stream] = field(default_factory=list, init=False)

    @property
    def is_surveying(self) -> bool:
        """Whether what Redis forgot is being found again."""
        return self.bucket_search.contents is not None

    async def load(self) -> None:
        """Fills the index."""
        streams = await self.claims.load_streams(self.folder.id) + await self._take_over()
        for stream in sorted(streams, key=lambda stream: stream.updated_at):
            if stream.is_final:
                self.index.add(stream)
                if stream.owes_jobs:
                    self.completion.handover.owe(stream)
            else:
                await self.completion.bring_back(self.root, stream)
                self.unplaced.append(stream)
        if await self.claims.is_fresh():
            await self._survey_store()
        log.info("checkpoints loaded", finished=len(self.index), unfinished=len(self.unplaced))

    async def _take_over(self) -> list[Stream]:
        """What was recorded of this very folder under another name, or by a version that knew no
        names. Whose file is not here is somebody else's and stays as it is."""
        taken: list[Stream] = []
        left = 0
        for former in sorted({"", *self.folder.others} - {self.folder.id}):
            streams = await self.claims.load_streams(former)
            here = await asyncio.to_thread(_those_here, self.root, streams)
            taken += await self.claims.adopt([stream for stream in here if stream.is_final])
            for stream in here:
                if stream.is_final:
                    continue  # else perhaps leased by the dead, which claiming sees through
                if written := await self.claims.write(stream.in_folder(self.folder.id)):
                    taken.append(written)
            left += len(streams)
        if left:
            log.info(
                "records of other names",
                folder_id=self.folder.id,
                taken_over=len(taken),
                left_alone=left - len(taken),
            )
        return taken

    async def _survey_store(self, at_work: Callable[[], Iterable[Stream]] = tuple) -> None:
        contents = await patiently(self.bucket_search.take, what="survey of the store")
        # Asked after the listing, so that an upload begun in between is known by then.
        known = await self.claims.load_streams()
        contents.leave_to([*known, *at_work()])
        if contents.is_empty:
            await self._mark_used()
        else:
            self.bucket_search.contents = contents

    async def _mark_used(self) -> None:
        """Unless it was emptied once more: then it must count as that, so that it is told again."""
        first = self._first_restored
        if first is not None and await self.claims.load(first.id) is None:
            return
        await self.claims.mark_used()

    async def finish_survey(self) -> None:
        """Once every file of the folder was looked up, Redis knows as much as S3. It is surveying
        until Redis says so, too: else it would seem to have been emptied again."""
        if self.is_surveying:
            await self._mark_used()
            self.bucket_search.contents = None

    async def catch_up(
        self, found: Mapping[str, FileStamp], is_gone: Callable[[str], bool]
    ) -> list[str]:
        """After the first look. Returns the paths to go on with."""
        paths = await self.place(found, is_gone)
        if not self.unplaced:
            return paths + await self.end_displaced(found)
        log.warning(
            "files of unfinished streams cannot be seen now: they wait",
            streams=len(self.unplaced),
            first=self.unplaced[0].relpath,
        )
        return paths

    async def place(
        self, found: Mapping[str, FileStamp], is_gone: Callable[[str], bool]
    ) -> list[str]:
        """Returns the paths to go on with. A stream whose file was renamed while we were away is
        led to its new name; one whose file is surely gone is ended. One whose file may be out of
        sight only, in a folder that is not mounted or may not be read, waits."""
        if not self.unplaced:
            return []
        by_inode = _by_inode(found)
        paths: list[str] = []
        hidden: list[Stream] = []
        missing: list[Stream] = []
        for stream in self.unplaced:
            there = found.get(stream.relpath)
            is_in_place = there and stream.stamp and there.inode == stream.stamp.inode
            new_path = None if is_in_place else await self._new_path_of(stream, by_inode)
            if new_path is not None:
                paths.append(new_path)
            elif there is not None:  # another file in its place may be a new copy of it
                paths.append(stream.relpath)
            elif is_gone(stream.relpath):
                missing.append(stream)
            else:
                hidden.append(stream)
        await each(missing, self._end_missing, at_once=ENDS_AT_ONCE, name="end")
        self.unplaced = hidden
        return paths

    async def end_displaced(
        self, found: Mapping[str, FileStamp], at_work: Container[str] = ()
    ) -> list[str]:
        """A stream whose path another one took, by a rename over it or as its next generation, and
        that nobody brought to its end since: no path leads there. `at_work`: the ids of those that
        are dealt with. Returns the paths to go on with."""
        paths = []
        by_inode = _by_inode(found)
        for stream in await self.claims.load_displaced():
            if stream.id in at_work:
                continue
            new_path = await self._new_path_of(stream, by_inode)
            if new_path is not None:
                paths.append(new_path)
            else:
                await self._end_missing(stream)
        return paths

    async def _new_path_of(self, stream: Stream, by_inode: Mapping[int, list[str]]) -> str | None:
        """Inodes are used again: only a file that is proven to be its own goes on as a stream."""
        for new_path in by_inode.get(stream.stamp.inode, ()) if stream.stamp else ():
            if new_path == stream.relpath or self.index.get(new_path) is not None:
                continue
            stamp = await self._stamp_of_file_of(stream, new_path)
            if stamp is not None:
                log.info("renamed while we were away", file_path=new_path, former=stream.relpath)
                await self.claims.write(stream.found_at(new_path, stamp))
                return new_path
        return None

    async def _stamp_of_file_of(self, stream: Stream, relpath: str) -> FileStamp | None:
        """None where the file of that name is not the one of the stream, which may not be proven
        yet."""
        try:
            source = await asyncio.to_thread(SourceFile.open, self.root, relpath)
        except (FileNotFoundError, SourceError):
            return None
        with source:
            stamp = source.stamp()
            load_parts = partial(self.claims.load_parts, stream.id)
            is_same = await self.identity.is_file_of(source, stamp, stream, load_parts)
        return stamp if is_same else None

    async def _end_missing(self, stream: Stream) -> None:
        try:
            record = await self.claims.latest(stream)
        except ForeignStreamError:
            return
        if not record.stream.is_final:
            if record.stream.is_proven or await self.recovery.was_completed(record):
                await self.completion.finish(record, None)
            else:
                await self._fail_missing(record)
        await record.release()

    async def _fail_missing(self, record: StreamRecord) -> None:
        stream = record.stream
        log.error(
            "the file of an unfinished stream is gone",
            file_path=stream.relpath,
            stream_id=stream.id,
        )
        metrics.stale_outcomes.labels("missing").inc()
        try:
            if stream.upload_id:
                await self.uploader.abandon(record)
        except PermanentError as error:  # one stream must not end the start
            log.warning("its upload cannot be aborted", stream_id=stream.id, reason=str(error))
        reason = "missing: the file went away while nobody was watching"
        await record.failed(reason, counted_as="missing")

    async def restore(self, at_work: Callable[[], Iterable[Stream]]) -> None:
        """Redis lost its memory while we were running. What we know to be finished is written
        again, from the documents in S3. What other instances knew is found by a survey: until it
        is over, Redis counts as emptied, so that whoever starts now makes one, too."""

        async def restore_one(relpath: str) -> None:
            try:
                written = await self._restore_finished(relpath)
                if written is not None:
                    self.completion.handover.owe(written)  # the document does not tell of jobs
                self._first_restored = self._first_restored or written
            except CefError as error:
                log.warning("could not restore a record", file_path=relpath, reason=str(error))

        self._first_restored = None
        entries = [path for path, _ in self.index.entries()]
        await each(entries, restore_one, at_once=RESTORES_AT_ONCE, name="restoring")
        await self._survey_store(at_work)
        log.info("Redis knows again what we know", streams=len(entries))

    async def _restore_finished(self, relpath: str) -> Stream | None:
        """From its document in S3; None where that is not possible."""
        known = self.index.get(relpath)
        if known is None or not known.is_proven:
            return None
        found = await self.bucket_search.read_stream(relpath, known.key, known.stamp)
        if found is None or found.stream.id != known.stream_id:
            return None
        return await self.claims.write(found.stream, found.parts)


def _those_here(root: str, streams: list[Stream]) -> list[Stream]:
    return [stream for stream in streams if _is_here(root, stream)]


def _is_here(root: str, stream: Stream) -> bool:
    """A file that was being recorded may have grown since."""
    try:
        facts = look_up(root, stream.relpath)
    except (OSError, ValueError):
        return False
    stamp = stream.stamp
    if stamp is None or facts.st_ino != stamp.inode:
        return False
    if stream.is_final:
        return (facts.st_size, facts.st_mtime_ns) == (stamp.size, stamp.mtime_ns)
    return facts.st_size >= stamp.size


def _by_inode(found: Mapping[str, FileStamp]) -> dict[int, list[str]]:
    """Several file systems below the folder use the same inode numbers."""
    paths: dict[int, list[str]] = {}
    for relpath, stamp in found.items():
        paths.setdefault(stamp.inode, []).append(relpath)
    return paths
