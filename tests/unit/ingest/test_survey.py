"""What an emptied Redis no longer knows is found again in the store."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.fakes import FakeObjectStore

from cefmp4.ingest.source import SourceFile, crc_of, hash_range
from cefmp4.ingest.survey import Survey
from cefmp4.metadata.document import build_document, to_json
from cefmp4.model import names
from cefmp4.model.media import MediaInfo
from cefmp4.model.object import FileRange
from cefmp4.model.part import MIB, Part, PartPlan, PartSizing
from cefmp4.model.stream import Stream, StreamState

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
    survey = Survey(store=store, prefix="streams/", hashing=hashing, plan=PartPlan(10 * MIB))
    holdings = await survey.take()
    found = {}
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "r.mp4").write_bytes(CONTENT)
        with SourceFile.open(str(tmp_path), f"{folder}/r.mp4") as source:
            stream = await survey.find_stored(holdings, source, source.stamp())
            again = await survey.find_stored(holdings, source, source.stamp())
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
    document = to_json(
        build_document(stream, parts, MediaInfo(), bucket="b", watch_dir="/", processed_at=0.0)
    )
    await store.put_object(
        names.metadata_key(key), document, content_type="", metadata={}, crc64=crc_of(document)
    )
    survey = Survey(store=store, prefix="", hashing=hashing, plan=PartPlan(10 * MIB))
    with SourceFile.open(str(tmp_path), "r.mp4") as source:
        found = await survey.find_stored(await survey.take(), source, source.stamp())
    assert found
    assert found.stream.state is StreamState.DESCRIBED
    assert found.stream.plan.ranges_for(len(content)) == cuts


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
    survey = Survey(store=store, prefix="", hashing=hashing, plan=PartPlan(part))
    holdings = await survey.take()
    with SourceFile.open(str(tmp_path), "new.mp4") as source:
        found = await survey.take_upload(holdings, source)
        again = await survey.take_upload(holdings, source)
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
