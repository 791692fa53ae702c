"""How much of a file was never written, and what follows."""

import os
from pathlib import Path

import pytest

from cefmp4.model.part import GIB, MIB
from cefmp4.recording.file import SourceFile
from cefmp4.recording.holes import Holes, missing_bytes

TIB = 1024 * GIB


def made(path: Path, size: int, data: dict[int, int]) -> SourceFile:
    """A file of that size with so many bytes at those places."""
    with path.open("wb") as file:
        file.truncate(size)
        for at, count in data.items():
            file.seek(at)
            file.write(os.urandom(count))
        file.flush()
        os.fsync(file.fileno())
    return SourceFile.open(str(path.parent), path.name)


@pytest.mark.parametrize(
    ("size", "data", "is_refused"),
    [
        (TIB, {}, True),
        (TIB, {0: MIB, TIB // 2: MIB, TIB - MIB: MIB}, True),
        (GIB + 2 * MIB, {}, True),
        (GIB, {}, False),  # a modest one is stored as it is
        (100 * MIB, {0: MIB}, False),
        (3 * MIB, {0: 3 * MIB}, False),
        (0, {}, False),
    ],
)
async def test_what_is_mostly_holes(
    tmp_path: Path, size: int, data: dict[int, int], is_refused: bool
) -> None:
    with made(tmp_path / "r.mp4", size, data) as source:
        complaint = await Holes(source).complaint(source.stamp())
        assert bool(complaint) == is_refused
        assert ("HOLES_LIMIT_BYTES" in complaint) == is_refused


async def test_more_data_than_holes_is_no_reason_whatever_is_missing(tmp_path: Path) -> None:
    with made(tmp_path / "r.mp4", 8 * MIB, {0: 5 * MIB}) as source:
        assert not await Holes(source, limit_bytes=MIB).complaint(source.stamp())
    with made(tmp_path / "s.mp4", 8 * MIB, {0: 3 * MIB}) as source:
        assert await Holes(source, limit_bytes=MIB).complaint(source.stamp())


async def test_an_operator_may_allow_it_and_is_told_with_how_much(tmp_path: Path) -> None:
    with made(tmp_path / "r.mp4", TIB, {0: MIB}) as source:
        complaint = await Holes(source).complaint(source.stamp())
        told = int(complaint.split("HOLES_LIMIT_BYTES=")[1].split()[0])
        assert told < TIB
        assert not await Holes(source, limit_bytes=told).complaint(source.stamp())
        assert await Holes(source, limit_bytes=told - 1).complaint(source.stamp())


async def test_data_that_comes_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "r.mp4"
    with made(path, 8 * MIB, {}) as source:
        holes = Holes(source, limit_bytes=MIB)
        assert await holes.complaint(source.stamp())
        with path.open("r+b") as file:
            file.write(os.urandom(8 * MIB))
        os.sync()
        assert not await holes.complaint(source.stamp())


def test_reserved_space_is_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "r.mp4"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 64 * MIB)
    with SourceFile.open(str(tmp_path), path.name) as source:
        assert missing_bytes(source.fd, 64 * MIB) == 0


def test_very_many_small_pieces_are_judged_without_walking_through_all(tmp_path: Path) -> None:
    path = tmp_path / "r.mp4"
    with path.open("wb") as file:
        file.truncate(TIB)
        for number in range(20_000):
            os.pwrite(file.fileno(), b"x", number * MIB)
    with SourceFile.open(str(tmp_path), path.name) as source:
        assert missing_bytes(source.fd, TIB) > TIB * 9 // 10
