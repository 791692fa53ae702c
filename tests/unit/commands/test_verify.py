"""`verify` believes no date: what it says is said of bytes."""

import os
from pathlib import Path

import pytest
from tests.support.fake_store import FakeObjectStore

from cefmp4.commands import verify
from cefmp4.model.part import MIN_PART_BYTES
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.recording.file import SourceFile

KEY = "streams/s/r.mp4"
DATA = os.urandom(2 * MIN_PART_BYTES + 1234)
DATE = 1_700_000_000


async def stored(root: Path) -> tuple[FakeObjectStore, Stream]:
    path = root / "r.mp4"
    path.write_bytes(DATA)
    os.utime(path, (DATE, DATE))
    store = FakeObjectStore()
    etag = await store.put_object(KEY, DATA, content_type="", metadata={}, crc64=crc_of(DATA))
    with SourceFile.open(str(root), "r.mp4") as source:
        stream = Stream(
            id="s", relpath="r.mp4", state=StreamState.DESCRIBED, key=KEY, size=len(DATA),
            part_base=MIN_PART_BYTES, stamp=source.stamp(), crc64=crc_of(DATA), etag=etag,
        )  # fmt: skip
    return store, stream


@pytest.mark.parametrize(
    ("at", "part"), [(0, 1), (MIN_PART_BYTES - 1, 1), (MIN_PART_BYTES, 2), (len(DATA) - 1, 3)]
)
@pytest.mark.parametrize("is_same_inode", [True, False])
async def test_other_bytes_of_the_same_size_and_date_are_different(
    tmp_path: Path, at: int, part: int, is_same_inode: bool
) -> None:
    store, stream = await stored(tmp_path)
    path = tmp_path / "r.mp4"
    if not is_same_inode:
        path.rename(tmp_path / "front.mp4")  # so that its inode stays taken
        path.write_bytes(DATA)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([DATA[at] ^ 1]))
    os.utime(path, (DATE, DATE))
    assert stream.stamp is not None
    there = path.stat()
    assert (there.st_ino == stream.stamp.inode) is is_same_inode
    assert (there.st_size, there.st_mtime_ns) == (stream.stamp.size, stream.stamp.mtime_ns)
    verdict = await verify._verify("r.mp4", stream, str(tmp_path), store)
    assert not verdict.identical
    assert verdict.detail == f"other bytes in part {part}"


async def test_new_dates_and_another_inode_make_no_difference(tmp_path: Path) -> None:
    store, stream = await stored(tmp_path)
    (tmp_path / "r.mp4").unlink()
    (tmp_path / "r.mp4").write_bytes(DATA)
    verdict = await verify._verify("r.mp4", stream, str(tmp_path), store)
    assert verdict.identical, verdict.detail
