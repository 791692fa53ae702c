"""Files that are renamed, removed and replaced below a FUSE mount while they are open above it."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from tests.support.fake_checkpoints import FakeCheckpointStore

from cefmp4.ingest.record import StreamRecord
from cefmp4.model.part import MIN_PART_BYTES, Part
from cefmp4.model.stream import Stream
from cefmp4.ports.checkpoints import Lease
from cefmp4.recording.digests import hash_range
from cefmp4.recording.file import DescriptorLostError, SourceFile
from cefmp4.recording.identity import take_up
from cefmp4.recording.write_guard import WriteGuards, WriteGuardState

pytestmark = pytest.mark.integration

CACHED_S = 3.0  # FUSE remembers names and attributes for a second
DATA = os.urandom(3 * MIN_PART_BYTES)
T = TypeVar("T")


@pytest.fixture
def below(tmp_path: Path) -> Iterator[Path]:
    """Seen at tmp_path/mount."""
    program = shutil.which("bindfs")
    if program is None:
        pytest.skip("2026-11: bindfs is not installed (make setup)")
    folder, mount = tmp_path / "below", tmp_path / "mount"
    folder.mkdir()
    mount.mkdir()
    if subprocess.run([program, str(folder), str(mount)], check=False).returncode != 0:
        pytest.skip("2026-11: there is no FUSE here")
    (folder / "a.mp4").write_bytes(DATA)
    yield folder
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.fixture
def source(below: Path) -> Iterator[SourceFile]:
    with SourceFile.open(str(below.parent / "mount"), "a.mp4") as opened:
        yield opened


def record_of(*parts: int) -> StreamRecord:
    """Of a stream of which these parts of DATA were sent."""
    stream = Stream(id="s", relpath="a.mp4", part_base=MIN_PART_BYTES)
    sent = {}
    for number in parts:
        cut = stream.plan.range_of(number)
        crc64 = crc_of_data(cut.start, cut.end)
        sent[number] = Part(number=number, size=cut.size, crc64=crc64, etag="e", uploaded_at=0.0)
    return StreamRecord(
        stream=stream,
        lease=Lease("s", "me", 1),
        parts=sent,
        checkpoints=FakeCheckpointStore(),
        wall_clock=time.time,
    )


def crc_of_data(start: int, end: int) -> int:
    fd = os.memfd_create("data")
    os.write(fd, DATA)
    try:
        return hash_range(fd, start, end)
    finally:
        os.close(fd)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + CACHED_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_lost(source: SourceFile) -> bool:
    try:
        source.stamp()
    except DescriptorLostError:
        return True
    return False


def test_a_file_that_was_removed_is_gone(below: Path, source: SourceFile) -> None:
    before = source.stamp()
    (below / "a.mp4").unlink()
    until(lambda: is_lost(source))
    look = source.look()
    assert (look.in_place, look.is_replaced, look.stamp) == (False, False, before)


def test_a_file_that_was_replaced_is_not_taken_for_the_open_one(
    below: Path, source: SourceFile
) -> None:
    """Its attributes are what the open descriptor tells; its bytes are not what that reads."""
    (below / "b").write_bytes(b"x" * 10)
    (below / "b").rename(below / "a.mp4")
    until(lambda: is_lost(source))
    look = source.look()
    assert look.is_replaced
    assert look.stamp.size == len(DATA)


def test_a_file_that_came_back_is_opened_again(below: Path, source: SourceFile) -> None:
    fd, before = source.fd, source.stamp()
    (below / "a.mp4").rename(below / "b.mp4")
    until(lambda: is_lost(source))
    (below / "b.mp4").rename(below / "a.mp4")
    until(lambda: source.look().in_place)
    assert (source.is_lost, source.fd) == (False, fd)
    assert source.stamp().is_same_file(before) is not False
    assert hash_range(source.fd, 0, len(DATA)) == crc_of_data(0, len(DATA))


@pytest.mark.parametrize("sent", [(), (1,), (1, 2)])
def test_a_file_that_was_renamed_is_known_by_what_was_sent(
    sent: tuple[int, ...], below: Path, source: SourceFile
) -> None:
    plan, parts = record_of(*sent).stream.plan, record_of(*sent).parts
    assert not take_up(source, "b.mp4", plan, parts)
    (below / "a.mp4").rename(below / "b.mp4")
    (below / "c.mp4").write_bytes(os.urandom(len(DATA)))
    until(lambda: is_lost(source))
    assert not take_up(source, "c.mp4", plan, parts)
    assert not take_up(source, "missing.mp4", plan, parts)
    assert take_up(source, "b.mp4", plan, parts)
    source.relpath = "b.mp4"
    assert source.look().in_place


def test_pages_that_were_read_are_read_anew(below: Path, source: SourceFile) -> None:
    """What was sent while the file grew is in the page cache, which a writer below does not see."""
    hash_range(source.fd, 0, len(DATA))
    patched = b"patched" + DATA[7:]
    fd = os.open(below / "a.mp4", os.O_WRONLY)
    os.pwrite(fd, b"patched", 0)
    os.close(fd)
    source.refresh()
    assert os.pread(source.fd, len(patched), 0) == patched
    (below / "a.mp4").unlink()
    until(lambda: is_lost(source))
    with pytest.raises(DescriptorLostError):
        source.refresh()


def test_of_two_names_in_a_cache_neither_is_believed(below: Path, source: SourceFile) -> None:
    (below / "a.mp4").rename(below / "b.mp4")
    assert source.may_be_at("b.mp4")
    (below / "hard.mp4").hardlink_to(below / "b.mp4")
    until(lambda: os.stat(f"{source.root}/hard.mp4").st_nlink == 2)
    assert not source.may_be_at("hard.mp4")


async def test_a_lost_descriptor_has_no_write_guard(below: Path, source: SourceFile) -> None:
    async with WriteGuards() as wires:
        (below / "a.mp4").unlink()
        until(lambda: is_lost(source))
        assert wires.writer_state(source.fd) is WriteGuardState.BLIND
