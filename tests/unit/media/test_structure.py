"""Files that cannot be whole are told by the sizes they declare."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefmp4.media.structure import find_problem


def atom(kind: str, size: int = 24, *, declared: int | None = None) -> bytes:
    length = size if declared is None else declared
    return (length.to_bytes(4, "big") + kind.encode("latin-1")).ljust(size, b"x")


def wide_atom(kind: str, size: int, declared: int) -> bytes:
    return (b"\0\0\0\1" + kind.encode() + declared.to_bytes(8, "big")).ljust(size, b"x")


FTYP, MOOV, MDAT, MOOF = atom("ftyp"), atom("moov"), atom("mdat", 40), atom("moof")
EBML = b"\x1aE\xdf\xa3\x84abcd"
SEGMENT = b"\x18S\x80g"


def look(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "x").write_bytes(data)
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    try:
        return find_problem(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "data",
    [
        FTYP + MDAT + MOOV,
        FTYP + MOOV + MDAT,
        FTYP + MOOV + atom("mdat", 40, declared=0),  # to the end of the file
        FTYP + wide_atom("mdat", 40, 40) + MOOV,
        atom("wide") + MDAT + MOOV,  # QuickTime of old
        FTYP + MDAT + MOOV + b"\0" * 4096,  # preallocated and never cut
        FTYP + MDAT + MOOV + b"some trailing words",
        FTYP + MDAT + MOOV + atom("free", 10, declared=500),
        FTYP + MDAT + MOOV + atom("\xa9xyz"),
        EBML + SEGMENT + b"\x84" + b"abcd",
        EBML + SEGMENT + b"\x01" + b"\xff" * 7 + b"live",  # no size: never finished
        b"RIFF" + (20).to_bytes(4, "little") + b"AVI " + b"x" * 16,
        b"RIFF" + b"\xff" * 4 + b"WAVE",
        b"RIFF" + b"\0" * 4 + b"WAVE",
        b"G" + b"\0" * 187,
        b"\0\0\0\1\x67",  # a raw H.264 stream
        b"some text",
    ],
)
def test_nothing_speaks_against(tmp_path: Path, data: bytes) -> None:
    assert look(tmp_path, data) == ""


@pytest.mark.parametrize(
    "data",
    [
        FTYP + MOOV + MOOF + MDAT,
        FTYP + MOOV + atom("sidx") + MOOF + atom("mdat", 9, declared=99),  # plays up to there
        FTYP + MOOV + atom("moof", 10, declared=99),
    ],
)
def test_fragments_play_up_to_the_last_whole_one(tmp_path: Path, data: bytes) -> None:
    assert look(tmp_path, data) == ""


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the file is empty"),
        (b"\0" * 100_000, "nothing but zeros"),
        (FTYP + MDAT, "no moov: the recorder did not finish"),
        (FTYP + atom("mdat", 40, declared=0), "no moov: the recorder did not finish"),
        (FTYP, "no moov"),
        (atom("styp") + MOOF + MDAT, "a media segment without its header"),
        (FTYP + MOOV + atom("mdat", 40, declared=140), "truncated: mdat ends 100 bytes behind"),
        (FTYP + MOOV + wide_atom("mdat", 40, 2**40), "truncated: mdat ends"),
        (FTYP + atom("mdat", 40, declared=140), "no moov, and mdat ends 100 bytes behind"),
        (FTYP + MDAT + atom("moov", 40, declared=60), "truncated: moov ends 20 bytes behind"),
        (EBML + SEGMENT + b"\x88abcd", "truncated: the segment ends 4 bytes behind"),
        (b"RIFF" + (100).to_bytes(4, "little") + b"AVI ", "should have 96 bytes more"),
    ],
)
def test_what_cannot_be_whole(tmp_path: Path, data: bytes, problem: str) -> None:
    assert problem in look(tmp_path, data)


def test_many_atoms_are_not_read_to_the_end(tmp_path: Path) -> None:
    assert look(tmp_path, FTYP + atom("free", 8) * 5000) == ""


_PIECES = st.sampled_from([FTYP, MOOV, MDAT, MOOF, EBML, SEGMENT, b"RIFF", b"\0", b"\xff" * 8])


@settings(max_examples=200)
@given(st.lists(_PIECES | st.binary(max_size=12), max_size=8))
def test_any_bytes_are_survived(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes]
) -> None:
    look(tmp_path_factory.getbasetemp(), b"".join(data))
