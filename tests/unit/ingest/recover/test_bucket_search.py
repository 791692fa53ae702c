"""What an emptied Redis no longer knows is found again in the store."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fake_store import FakeObjectStore

from cefmp4.ingest.recover.bucket_search import BucketSearch
from cefmp4.ingest.recover.recovery import Recovery
from cefmp4.metadata.document import build_document
from cefmp4.model import names
from cefmp4.model.media import MediaInfo
from cefmp4.model.object import FileRange
from cefmp4.model.part import MIB, Part, PartPlan, PartSizing
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.digests import crc_of, hash_range
from cefmp4.recording.file import SourceFile

CONTENT = b"the same recording" * 1000


@pytest.fixture
def hashing() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_files_of_the_same_bytes_have_an_object_each(
    tmp_path: Path, hashing: ThreadPoolExecutor
) -> None:
    store = FakeObjectStore()
    ids = {f"20260101T00000{number}Z-0000000{number}" for number in range(2)}
    for stream_id in ids:
        await store.put_object(
            f"streams/{stream_id}/r.mp4",
            CONTENT,
            content_type="video/mp4",
            metadata={"cefmp4-stream-id": stream_id, "cefmp4-crc64nvme": f"{crc_of(CONTENT):016x}"},
            crc64=crc_of(CONTENT),
        )
    bucket_search = BucketSearch(
        store=store, prefix="streams/", hashing=hashing, plan=PartPlan(10 * MIB)
    )
    contents = await bucket_search.take()
    found = {}
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "r.mp4").write_bytes(CONTENT)
        with SourceFile.open(str(tmp_path), f"{folder}/r.mp4") as source:
            stream = await bucket_search.find_stored(contents, source, source.stamp())
            again = await bucket_search.find_stored(contents, source, source.stamp())
        found[folder] = stream.stream.id if stream else None
        assert (again.stream.id if again else None) == found[folder]
    assert {found["a"], found["b"]} == ids
    assert found["c"] is None


async def test_parts_of_another_size_than_today_s_are_told_by_the_document(
    tmp_path: Path, hashing: ThreadPoolExecutor
) -> None:
    """A listing has no user metadata, which tells the plan otherwise."""
    store, key, content = FakeObjectStore(), "streams/a/r.mp4", bytes(17 * MIB)
    (tmp_path / "r.mp4").write_bytes(content)
    cuts = PartPlan(8 * MIB, PartSizing.EQUAL).ranges_for(len(content))
    parts = [
        Part(number=cut.number, size=cut.size, crc64=0, etag="", uploaded_at=0.0) for cut in cuts
    ]
    crc = crc_of(content)
    etag = await store.put_object(key, content, content_type="", metadata={}, crc64=crc)
    stream = Stream(
        id="a", relpath="r.mp4", key=key, part_base=1, size=len(content), crc64=crc, etag=etag
    )
    document = build_document(
        stream, parts, MediaInfo(), bucket="b", watch_dir="/", processed_at=0.0
    )
    await store.put_object(
        names.metadata_key(key), document, content_type="", metadata={}, crc64=crc_of(document)
    )
    bucket_search = BucketSearch(store=store, prefix="", hashing=hashing, plan=PartPlan(10 * MIB))
    with SourceFile.open(str(tmp_path), "r.mp4") as source:
        found = await bucket_search.find_stored(await bucket_search.take(), source, source.stamp())
    assert found
    assert found.stream.state is StreamState.DESCRIBED
    assert found.stream.plan.ranges_for(len(content)) == cuts


FRONT, REAR = os.urandom(12 * MIB), os.urandom(12 * MIB)
KEY, PLAN = "streams/20260101T000000Z-0000000a/r.mp4", PartPlan(5 * MIB)


async def store_front(store: FakeObjectStore, folder: Path, told_by: str) -> Stream:
    """`told_by`: what the store has that tells which bytes an object holds."""
    path = folder / "r.mp4"
    path.write_bytes(FRONT)
    crc = crc_of(FRONT)
    metadata = {names.META_STREAM_ID: "20260101T000000Z-0000000a"}
    if told_by == "parts":
        metadata |= {names.META_PART_BASE: str(PLAN.base), names.META_PART_SIZING: PLAN.sizing}
        etag = await store_in_parts(store, path, metadata)
    else:
        etag = await store.put_object(KEY, FRONT, content_type="", metadata=metadata, crc64=crc)
    with SourceFile.open(str(folder), "r.mp4") as source:
        stream = Stream(
            id="20260101T000000Z-0000000a", relpath="r.mp4", key=KEY, part_base=PLAN.base,
            size=len(FRONT), stamp=source.stamp(), crc64=crc, etag=etag,
        )  # fmt: skip
    if told_by == "document":
        await put_document(store, stream)
    return stream


async def store_in_parts(store: FakeObjectStore, path: Path, metadata: dict[str, str]) -> str:
    """On a server that tells no checksums."""
    upload = await store.begin_upload(KEY, content_type="", metadata=metadata)
    parts = []
    with path.open("rb") as file:
        for cut in PLAN.ranges_for(len(FRONT)):
            crc = hash_range(file.fileno(), cut.start, cut.end)
            body = FileRange(file.fileno(), cut.start, cut.size)
            etag = await store.put_part(KEY, upload, cut.number, body, crc64=crc)
            parts.append(
                Part(number=cut.number, size=cut.size, crc64=crc, etag=etag, uploaded_at=0.0)
            )
    whole = await store.complete_upload(KEY, upload, parts, crc64=crc_of(FRONT))
    stored, data = store._objects[KEY]
    store._objects[KEY] = replace(stored, crc64=None), data
    return whole


async def put_document(store: FakeObjectStore, stream: Stream) -> None:
    document = build_document(stream, [], MediaInfo(), bucket="b", watch_dir="/", processed_at=0.0)
    await store.put_object(
        names.metadata_key(KEY), document, content_type="", metadata={}, crc64=crc_of(document)
    )


def replace_with_rear(path: Path) -> None:
    """The same inode, size and date, and other bytes."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(REAR)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert after.st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("is_same", [True, False])
@pytest.mark.parametrize("told_by", ["document", "checksum", "parts"])
async def test_an_object_is_found_by_all_bytes_of_its_file(
    tmp_path: Path, hashing: ThreadPoolExecutor, told_by: str, is_same: bool
) -> None:
    """Not by inode, size, date and name, in which both are alike."""
    store = FakeObjectStore()
    stream = await store_front(store, tmp_path, told_by)
    if not is_same:
        replace_with_rear(tmp_path / "r.mp4")
    bucket_search = BucketSearch(store=store, prefix="", hashing=hashing, plan=PLAN)
    with SourceFile.open(str(tmp_path), "r.mp4") as source:
        found = await bucket_search.find_stored(await bucket_search.take(), source, source.stamp())
    assert (found.stream.id if found else None) == (stream.id if is_same else None)


@pytest.mark.parametrize("is_same", [True, False])
async def test_an_upload_is_found_by_bytes_of_its_file(
    tmp_path: Path, hashing: ThreadPoolExecutor, is_same: bool
) -> None:
    store, path = FakeObjectStore(), tmp_path / "r.mp4"
    path.write_bytes(FRONT)
    upload = await store.begin_upload(KEY, content_type="", metadata={})
    for number in (1, 2):
        await _send(store, KEY, upload, path, number=number)
    if not is_same:
        replace_with_rear(path)
    bucket_search = BucketSearch(store=store, prefix="", hashing=hashing, plan=PLAN)
    with SourceFile.open(str(tmp_path), "r.mp4") as source:
        contents = await bucket_search.take()
        recovery = Recovery(store=store, hashing=hashing, plan=PLAN)
        found = await recovery.take_upload(contents, source)
    assert (found is not None) is is_same


@pytest.mark.parametrize("what", ["nothing", "the object", "the document"])
async def test_a_finished_stream_is_read_back_only_while_its_object_is_there(
    tmp_path: Path, hashing: ThreadPoolExecutor, what: str
) -> None:
    """Another object of its size under its key is not it, with or without a document."""
    store = FakeObjectStore()
    stream = await store_front(store, tmp_path, "document")
    if what != "nothing":
        other = await store.put_object(KEY, REAR, content_type="", metadata={}, crc64=crc_of(REAR))
        if what == "the document":
            await put_document(store, replace(stream, id="b", etag=other, crc64=crc_of(REAR)))
    bucket_search = BucketSearch(store=store, prefix="", hashing=hashing, plan=PLAN)
    assert stream.stamp
    found = await bucket_search.read_stream("r.mp4", KEY, stream.stamp)
    expected = {"nothing": stream.id, "the object": None, "the document": "b"}
    assert (found.stream.id if found else None) == expected[what]
    if found is not None:
        assert found.stream.stamp == stream.stamp


@pytest.mark.parametrize("key", ["streams/20260101T000000Z-0000000a/old.mp4", "old.mp4"])
async def test_the_upload_of_a_renamed_file_is_found_by_its_bytes(
    tmp_path: Path, hashing: ThreadPoolExecutor, key: str
) -> None:
    """Among others; not one whose key does not show that it is ours."""
    part = 5 * MIB
    data = os.urandom(3 * part)
    path = tmp_path / "new.mp4"
    path.write_bytes(data)
    store = FakeObjectStore()
    mine = await store.begin_upload(key, content_type="", metadata={})
    await _send(store, key, mine, path, number=2)
    other = tmp_path / "other.mp4"
    other.write_bytes(os.urandom(4 * part))
    for number in range(3):
        other_key = f"streams/20260101T00000{number}Z-0000000b/gone.mp4"
        upload = await store.begin_upload(other_key, content_type="", metadata={})
        await _send(store, other_key, upload, other, number=number + 1)
    bucket_search = BucketSearch(store=store, prefix="", hashing=hashing, plan=PartPlan(part))
    contents = await bucket_search.take()
    with SourceFile.open(str(tmp_path), "new.mp4") as source:
        recovery = Recovery(store=store, hashing=hashing, plan=PartPlan(part))
        found = await recovery.take_upload(contents, source)
        again = await recovery.take_upload(contents, source)
    assert (found[0].upload_id if found else None) == (mine if "/" in key else None)
    assert again is None


async def _send(
    store: FakeObjectStore, key: str, upload_id: str, path: Path, *, number: int
) -> None:
    cut = PartPlan(5 * MIB).range_of(number)
    with path.open("rb") as file:
        body = FileRange(file.fileno(), cut.start, cut.size)
        crc64 = hash_range(file.fileno(), cut.start, cut.end)
        await store.put_part(key, upload_id, number, body, crc64=crc64)
