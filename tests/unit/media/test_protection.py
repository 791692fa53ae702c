"""Encrypted tracks are told by what the file itself declares."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefmp4.media.protection import Protection, find_protection

ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_CONTENT_ENCRYPTION = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")


def box(kind: str, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return (8 + len(content)).to_bytes(4, "big") + kind.encode("latin-1") + content


def track(entry: str) -> bytes:
    entries = box("stsd", bytes(8), box(entry, bytes(30)))
    return box("trak", box("tkhd", bytes(84)), box("mdia", box("minf", box("stbl", entries))))


def packets(control: int, count: int = 100) -> bytes:
    return b"".join(bytes((0x47, 0x01, 0x00, control)).ljust(188, b"x") for _ in range(count))


def look(path: Path, data: bytes) -> Protection:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return find_protection(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("entries", "encrypted"),
    [
        (("avc1", "mp4a"), set()),
        (("encv", "enca"), {0, 1}),
        (("avc1", "mp4a", "enca"), {2}),
        (("drmi", "drms"), {0, 1}),
    ],
)
def test_tracks_of_an_mp4(tmp_path: Path, entries: tuple[str, ...], encrypted: set[int]) -> None:
    moov = box("moov", box("mvhd", bytes(100)), *map(track, entries))
    for data in (box("ftyp", bytes(8)) + moov, box("ftyp", bytes(8)) + box("mdat", b"x") + moov):
        assert look(tmp_path / "x", data).tracks == encrypted


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (ASF + bytes(50) + ASF_CONTENT_ENCRYPTION, True),
        (ASF + bytes(80), False),
        (packets(0x10), False),
        (packets(0x10, 10) + packets(0x90), True),  # its tables are in the clear
        (b"G" + bytes(400), False),
        (b"", False),
    ],
)
def test_whole_files(tmp_path: Path, data: bytes, is_whole: bool) -> None:
    assert look(tmp_path / "x", data).is_whole is is_whole


@settings(max_examples=50)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_whatever_is_in_it(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    whole = box("ftyp", bytes(8)) + box("moov", track("encv"))
    path = tmp_path_factory.getbasetemp() / "noise"
    look(path, noise)
    look(path, whole[:at] + noise + whole[at:])


def test_a_box_that_ends_beyond_all_files(tmp_path: Path) -> None:
    """Raw H.264 often begins like one; no system call takes such a place."""
    raw_h264 = bytes.fromhex("000000016764001facd940a02ff97011000003000100000300328f18319600")
    for data in (raw_h264, box("ftyp", bytes(8)) + raw_h264 * 2):
        assert look(tmp_path / "x", data) == Protection()
