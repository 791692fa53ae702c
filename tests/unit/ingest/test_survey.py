"""What an emptied Redis no longer knows is found again in the store."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.fakes import FakeObjectStore

from cefmp4.ingest.source import SourceFile, crc_of
from cefmp4.ingest.survey import Survey

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
    survey = Survey(store=store, prefix="streams/", hashing=hashing)
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
