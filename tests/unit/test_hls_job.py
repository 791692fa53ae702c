"""The worker encodes the proven bytes: the local file only where that has them, to the end."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.fake_store import FakeObjectStore

from cefmp4.errors import PermanentError, TransientError
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls.result import HlsResult, Tier
from cefmp4.hls_job import HlsJobs
from cefmp4.jobs.steps import StepContext
from cefmp4.media.source import MediaSource, UnusableSourceError
from cefmp4.model.job import JobInput, JobKind, JobSpec, input_of_stream
from cefmp4.model.names import META_STREAM_ID
from cefmp4.model.object import StoredObject
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.recording.stamps import birth_ns, stamp_of
from cefmp4.storage.s3.errors import KeyMissingError

KEY, DATE = "streams/s/r.mp4", 1_700_000_000
FRONT, REAR = os.urandom(3 << 20), os.urandom(3 << 20)


@dataclass
class Found:
    store: FakeObjectStore
    stored: StoredObject

    @property
    def size(self) -> int:
        return self.stored.size

    @property
    def etag(self) -> str:
        return self.stored.etag

    async def read(self, start: int, end: int) -> bytes:
        return await self.store.read(self.stored.key, start, end)


class Store(FakeObjectStore):
    async def find_object(self, key: str, *, bucket: str = "") -> Found:
        stored = await self.head(key)
        if stored is None:
            raise KeyMissingError
        return Found(self, stored)


@dataclass
class Reader:
    """Reads what it is given in two halves; `between` happens to the file meanwhile."""

    between: Callable[[], object] = lambda: None
    finds_media: bool = True
    seen: list[bytes | str] = field(default_factory=list)

    async def encode(self, source: MediaSource, *_: object, **__: object) -> HlsResult:
        if source.fd is None:
            self.seen.append(source.url)
        else:
            half = len(FRONT) // 2
            first = os.pread(source.fd, half, 0)
            self.between()
            self.seen.append(first + os.pread(source.fd, len(FRONT), half))
        if not self.finds_media:
            raise UnusableSourceError("there is no picture in it")
        return HlsResult(
            stream_id="s", bucket="b", tier=Tier.COPY, tracks=(), master_key="m",
        )  # fmt: skip


@dataclass
class Worker:
    path: Path
    source: JobInput
    store: Store
    watch_dir: str = ""

    def jobs_with(self, reader: Reader) -> HlsJobs:
        return HlsJobs(
            store=self.store,
            bucket="b",
            encoder=cast("HlsEncoder", reader),
            results=(),
            watch_dir=self.watch_dir or str(self.path.parent),
        )

    async def work(self, reader: Reader, **changes: Any) -> None:
        spec = JobSpec(subject="s", kind=JobKind.HLS, input=replace(self.source, **changes))
        await self.jobs_with(reader).make(
            StepContext(
                spec=spec,
                attempt="a1",
                slot=None,
                folder=self.path.parent,
                report=lambda _: None,
                ended=asyncio.Event(),
            )
        )

    def write(self, data: bytes, at: int = 0) -> None:
        """In place, with the date set back afterwards."""
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(data)
        os.utime(self.path, (DATE, DATE))

    @property
    def is_alike(self) -> bool:
        facts = self.path.stat()
        return (facts.st_ino, facts.st_size, facts.st_mtime_ns) == (
            self.source.inode, self.source.size, self.source.mtime_ns
        )  # fmt: skip


@pytest.fixture
async def worker(tmp_path: Path) -> Worker:
    path = tmp_path / "r.mp4"
    path.write_bytes(FRONT)
    os.utime(path, (DATE, DATE))
    store = Store()
    etag = await store.put_object(KEY, FRONT, content_type="", metadata={}, crc64=crc_of(FRONT))
    with path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()), birth_ns(file.fileno()))
    stream = Stream(
        id="s", relpath="r.mp4", state=StreamState.DESCRIBED, key=KEY, part_base=1,
        size=len(FRONT), stamp=stamp, crc64=crc_of(FRONT), etag=etag,
    )  # fmt: skip
    return Worker(path, input_of_stream(stream, bucket="b", folder=str(tmp_path)), store)


async def test_the_local_file_is_read(worker: Worker) -> None:
    reader = Reader()
    await worker.work(reader)
    assert reader.seen == [FRONT]


async def test_another_file_with_its_inode_size_and_date_is_not_read(worker: Worker) -> None:
    worker.write(REAR)
    assert worker.is_alike
    reader = Reader()
    await worker.work(reader)
    assert reader.seen == ["http://recording/object"]


async def test_another_birth_is_another_file(worker: Worker) -> None:
    """Even with its change time, as after a clock was set back."""
    if not worker.source.birth_ns:
        pytest.skip("this file system does not tell when a file was made")
    reader = Reader()
    await worker.work(reader, birth_ns=worker.source.birth_ns + 1)
    assert reader.seen == ["http://recording/object"]


@pytest.mark.parametrize("finds_media", [True, False])
async def test_a_mixture_is_not_believed_though_the_date_was_set_back(
    worker: Worker, finds_media: bool
) -> None:
    """Neither what was made of it, nor that nothing can be made of it."""
    reader = Reader(lambda: worker.write(REAR[-1000:], len(FRONT) - 1000), finds_media)
    with pytest.raises(TransientError, match="changed while it was read"):
        await worker.work(reader)
    assert worker.is_alike
    assert reader.seen not in ([FRONT], [REAR])
    reader = Reader()
    await worker.work(reader)
    assert reader.seen == ["http://recording/object"]


@pytest.mark.parametrize("how", ["renamed", "removed", "rights"])
async def test_what_changes_no_bytes_is_fine(worker: Worker, how: str) -> None:
    change: dict[str, Callable[[], object]] = {
        "renamed": lambda: worker.path.rename(worker.path.with_name("new.mp4")),
        "removed": worker.path.unlink,
        "rights": lambda: worker.path.chmod(0o600),
    }
    reader = Reader(change[how])
    await worker.work(reader)
    assert reader.seen == [FRONT]


async def test_the_file_itself_may_be_the_reason(worker: Worker) -> None:
    with pytest.raises(PermanentError, match="no picture"):
        await worker.work(Reader(worker.path.unlink, finds_media=False))


async def test_a_file_outside_the_watched_folder_is_not_read(worker: Worker) -> None:
    """Whoever may give work names any file, and what its owner, size and dates are."""
    (worker.path.parent / "watched").mkdir()
    worker.watch_dir = str(worker.path.parent / "watched")
    reader = Reader()
    await worker.work(reader)
    await worker.work(reader, path=f"{worker.watch_dir}/../r.mp4")
    assert reader.seen == ["http://recording/object"] * 2
    with pytest.raises(PermanentError, match="not in WATCH_DIR"):
        await worker.work(reader, key="", etag="")


@pytest.mark.parametrize("what", ["link to it", "link on the way", "pipe"])
async def test_neither_links_nor_devices_are_opened(worker: Worker, what: str) -> None:
    top = worker.path.parent / "watched"
    top.mkdir()
    worker.watch_dir = str(top)
    path = top / "on-the-way" / "r.mp4" if what == "link on the way" else top / "r.mp4"
    if what == "link to it":
        path.symlink_to(worker.path)
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.parent.symlink_to(worker.path.parent)
    reader = Reader()
    await worker.work(reader, path=str(path))
    assert reader.seen == ["http://recording/object"]


@pytest.mark.parametrize(("attempt", "stays"), [("a1", True), ("a2", False), ("a11", False)])
async def test_what_players_find_is_never_discarded(
    worker: Worker, attempt: str, stays: bool
) -> None:
    """An old order for a step, given again and cancelled, takes back what it wrote."""
    store, spec = worker.store, JobSpec(subject="s", kind=JobKind.HLS, input=worker.source)
    segment = f"hls/s/h264-240p.{attempt}/seg_00000.m4s"
    master = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nh264-240p.a1/index.m3u8\n"
    for key, data in ((segment, b"media"), ("hls/s/master.m3u8", master)):
        await store.put_object(
            key, data, content_type="", metadata={META_STREAM_ID: "s"}, crc64=crc_of(data)
        )
    await worker.jobs_with(Reader()).discard(spec, attempt)
    assert (await store.head(segment) is not None) == stays
