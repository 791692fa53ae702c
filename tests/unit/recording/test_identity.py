"""Nothing that merely looks like a finished file counts as one: inodes are used again, sizes and
dates are equal. Where the file system tells births, they decide; else the bytes do."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.rig import PART, Rig, bytes_of

from cefmp4.errors import SourceError
from cefmp4.ingest.after.local_file import LocalFilePolicy
from cefmp4.ingest.fate import End
from cefmp4.metadata.document import build_document
from cefmp4.model.media import MediaInfo
from cefmp4.model.names import metadata_key
from cefmp4.model.part import Part
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import Identity
from cefmp4.recording.stamps import birth_ns, stamp_of

pytestmark = pytest.mark.leaps

BORN, LATER, NOBODY = 1_000, 2_000, 0
STAMP = FileStamp(1, 2, 3, 4, BORN, 5)


@pytest.mark.parametrize(
    ("changes", "is_unchanged"),
    [
        ({}, True),
        ({"device": 6}, True),  # a reboot
        ({"birth_ns": NOBODY}, True),  # an older record
        ({"birth_ns": LATER}, False),
        ({"inode": 9}, False),
        ({"size": 9}, False),
        ({"mtime_ns": 9}, False),
        ({"ctime_ns": 9}, False),
    ],
)
def test_what_is_unchanged_at_its_path(changes: dict[str, int], is_unchanged: bool) -> None:
    other = replace(STAMP, **changes)
    assert STAMP.is_unchanged(other) is is_unchanged
    assert other.is_unchanged(STAMP) is is_unchanged


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({}, True),
        ({"size": 9, "mtime_ns": 9, "ctime_ns": 9}, True),  # it grew
        ({"birth_ns": LATER}, False),
        ({"inode": 9}, False),
        ({"birth_ns": NOBODY}, None),
        ({"device": 6}, None),
        ({"device": 0}, None),
        ({"device": 6, "birth_ns": LATER}, False),
    ],
)
def test_what_is_the_same_file(changes: dict[str, int], is_same: bool | None) -> None:
    other = replace(STAMP, **changes)
    assert STAMP.is_same_file(other) is is_same
    assert other.is_same_file(STAMP) is is_same


async def pretend(rig: Rig, name: str, **changes: int) -> Stream:
    """Lets the finished file of r.mp4 have had the inode, the size and the times of `name`."""
    (stream,) = await rig.checkpoints.load_streams()
    with SourceFile.open(str(rig.folder), name) as source:
        stream = replace(stream, stamp=replace(source.stamp(), ctime_ns=1, **changes))
    rig.checkpoints._streams[stream.id] = stream
    rig.index.remove("r.mp4")
    rig.index.add(stream)
    return stream


@pytest.mark.parametrize("birth", [LATER, NOBODY])
async def test_another_file_with_its_inode_size_and_date_is_stored(rig: Rig, birth: int) -> None:
    rig.write(bytes_of(2 * PART))
    first = await rig.stored()
    (rig.folder / "r.mp4").unlink()
    rear = bytes_of(2 * PART)
    rig.write(rear, name="rear.mp4")
    await pretend(rig, "rear.mp4", birth_ns=birth)
    second = await rig.stored("rear.mp4")
    assert rig.store.data(second.record.stream.key) == rear
    assert second.record.stream.id != first.record.stream.id
    assert rig.index.get("r.mp4") is None


@pytest.mark.parametrize(
    "changes",
    [{}, {"birth_ns": NOBODY}, {"device": 999_999}, {"birth_ns": NOBODY, "device": 0}],
    ids=["told", "no birth", "other device", "older record"],
)
async def test_a_finished_file_under_a_new_name_is_recognised(
    rig: Rig, changes: dict[str, int]
) -> None:
    rig.write(bytes_of(2 * PART))
    first = await rig.stored()
    (rig.folder / "r.mp4").rename(rig.folder / "new.mp4")
    await pretend(rig, "new.mp4", **changes)
    assert await rig.admit("new.mp4") is None
    known = await rig.checkpoints.load_stream_at("", "new.mp4")
    assert known is not None
    assert known.id == first.record.stream.id
    assert rig.index.get("r.mp4") is None


async def test_a_new_recording_under_the_old_name_does_not_hide_a_rename(rig: Rig) -> None:
    rig.write(bytes_of(2 * PART))
    first = await rig.stored()
    (rig.folder / "r.mp4").rename(rig.folder / "r-1.mp4")
    rig.write(bytes_of(PART))
    assert await rig.admit("r-1.mp4") is None
    known = await rig.checkpoints.load_stream_at("", "r-1.mp4")
    assert known is not None
    assert known.id == first.record.stream.id


async def test_a_rename_is_recognised_beside_another_device_that_uses_its_inode(
    rig: Rig,
) -> None:
    """With one size and date, and the other one finished later: neither hides the other."""
    rig.write(bytes_of(2 * PART))
    first = await rig.stored()
    other = replace(first.record.stream, id="other", relpath="disk/r.mp4")
    assert other.stamp is not None
    other = replace(other, stamp=replace(other.stamp, device=999_999))
    rig.index.add(other)
    (rig.folder / "r.mp4").rename(rig.folder / "new.mp4")
    assert await rig.admit("new.mp4") is None
    known = await rig.checkpoints.load_stream_at("", "new.mp4")
    assert known is not None
    assert known.id == first.record.stream.id
    assert rig.index.get("disk/r.mp4") is not None


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_a_record_that_is_restored_tells_of_the_bytes_that_were_proven(
    rig: Rig, is_replaced: bool
) -> None:
    """Redis lost its memory while another file with the same inode, size and date took the name:
    nothing but the remembered stamp may vouch for the file."""
    rig.write(bytes_of(2 * PART))
    path, rear = rig.folder / "r.mp4", bytes_of(2 * PART)
    first = await rig.stored()
    stream = replace(first.record.stream)
    parts = list(first.record.parts.values())
    document = build_document(
        stream, parts, MediaInfo(), bucket="b", watch_dir="/", processed_at=0.0
    )
    await rig.store.put_object(
        metadata_key(stream.key), document, content_type="", metadata={}, crc64=crc_of(document)
    )
    before = path.stat()
    if is_replaced:
        rig.write(rear)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    rig.checkpoints.wipe()
    await rig.service().startup.restore(tuple)
    await rig.checkpoints.mark_used()
    rig.index.remove("r.mp4")
    known = await rig.checkpoints.load_stream_at("", "r.mp4")
    assert known is not None
    assert (known.id, known.stamp) == (stream.id, stream.stamp)
    again = await rig.admit()
    assert (again is not None) is is_replaced
    if again is not None:
        assert await rig.finish(again) is End.STORED
        assert rig.store.data(again.record.stream.key) == rear
        assert again.record.stream.generation == 2


async def test_what_lies_under_its_key_by_now_restores_no_record(rig: Rig) -> None:
    """It has its size, and a document of its own: it is another stream's."""
    rig.write(bytes_of(2 * PART))
    stream = (await rig.stored()).record.stream
    other = bytes_of(2 * PART)
    etag = await rig.store.put_object(
        stream.key, other, content_type="", metadata={}, crc64=crc_of(other)
    )
    theirs = replace(stream, id="theirs", etag=etag, crc64=crc_of(other))
    document = build_document(theirs, [], MediaInfo(), bucket="b", watch_dir="/", processed_at=0.0)
    await rig.store.put_object(
        metadata_key(stream.key), document, content_type="", metadata={}, crc64=crc_of(document)
    )
    rig.checkpoints.wipe()
    await rig.service().startup.restore(tuple)
    assert await rig.checkpoints.load_streams() == []


async def test_a_hard_link_is_a_file_of_its_own(rig: Rig) -> None:
    rig.write(bytes_of(2 * PART))
    await rig.stored()
    (rig.folder / "link.mp4").hardlink_to(rig.folder / "r.mp4")
    assert await rig.admit("link.mp4") is not None


async def test_the_birth_is_the_one_of_the_open_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()), birth_ns(file.fileno()))
    if not stamp.birth_ns:
        pytest.skip("this file system does not tell when a file was made")
    path.rename(tmp_path / "b.mp4")
    os.utime(tmp_path / "b.mp4", (1, 1))
    with (tmp_path / "b.mp4").open("rb") as file:
        assert birth_ns(file.fileno()) == stamp.birth_ns
    assert abs(stamp.birth_ns - stamp.ctime_ns) < 1_000_000_000


@pytest.mark.parametrize("sent", [[2, 3], []])
@pytest.mark.parametrize("is_its_file", [True, False])
async def test_a_growing_file_is_told_by_what_was_sent_of_it(
    tmp_path: Path, hashing: ThreadPoolExecutor, is_its_file: bool, sent: list[int]
) -> None:
    data = bytes_of(3 * PART)
    (tmp_path / "r.mp4").write_bytes(data + b"it grew" if is_its_file else bytes_of(4 * PART))
    with SourceFile.open(str(tmp_path), "r.mp4") as source:
        stamp = replace(source.stamp(), birth_ns=NOBODY)
        stream = Stream(id="s", relpath="old.mp4", part_base=PART, stamp=stamp)

        async def load_parts() -> dict[int, Part]:
            return {number: _part(number, data) for number in sent}

        identity = Identity(hashing=hashing)
        found = await identity.is_file_of(source, source.stamp(), stream, load_parts)
    assert found is (is_its_file and bool(sent))


def _part(number: int, data: bytes) -> Part:
    crc64 = crc_of(data[(number - 1) * PART : number * PART])
    return Part(number=number, size=PART, crc64=crc64, etag="", uploaded_at=0.0)


@pytest.mark.parametrize("was_read", [True, False])
@pytest.mark.parametrize("action", ["delete", "move:archive"])
def test_other_bytes_are_never_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, was_read: bool
) -> None:
    """The same stamp, other bytes: what was proven was another file with this inode."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.mp4"
    path.write_bytes(b"other")
    with SourceFile.open(str(tmp_path), "r.mp4") as source:
        stamp = source.stamp()
        stream = Stream(
            id="s", relpath="r.mp4", state=StreamState.STORED, part_base=PART,
            size=5, stamp=stamp, crc64=crc_of(b"bytes"),
        )  # fmt: skip
        proven = replace(stamp, ctime_ns=1) if was_read else None
        with pytest.raises(SourceError, match="stays where it is"):
            LocalFilePolicy(action).apply(stream, source, proven)
        stream = replace(stream, crc64=crc_of(b"other"))
        LocalFilePolicy(action).apply(stream, source, proven)
    assert not path.exists()
