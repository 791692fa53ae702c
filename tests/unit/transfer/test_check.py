"""A file is only taken for an object whose bytes it has."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cefmp4.model.names import META_PART_BASE, META_PART_SIZING
from cefmp4.model.object import StoredObject
from cefmp4.model.part import MIN_PART_BYTES
from cefmp4.recording.digests import crc_of, md5_of, multipart_etag
from cefmp4.transfer.check import Known, check_of

DATA = os.urandom(2 * MIN_PART_BYTES + 1234)
CUT = {META_PART_BASE: str(MIN_PART_BYTES), META_PART_SIZING: "grow"}
PARTS = [DATA[at : at + MIN_PART_BYTES] for at in range(0, len(DATA), MIN_PART_BYTES)]
PLAIN = StoredObject(key="k", size=len(DATA), etag=md5_of(DATA))
IN_PARTS = replace(PLAIN, etag=multipart_etag(map(md5_of, PARTS)), metadata=CUT)
WITH_CRC = replace(PLAIN, etag="anything", crc64=crc_of(DATA))


def holds(stored: StoredObject, data: bytes, folder: Path) -> bool:
    path = folder / "f"
    path.write_bytes(data)
    with path.open("rb") as file:
        return check_of(stored, etag_is_md5=True).holds(file.fileno(), lambda: False)


@pytest.mark.parametrize(
    ("stored", "by"),
    [(WITH_CRC, Known.CRC64), (PLAIN, Known.MD5), (IN_PARTS, Known.MD5)],
    ids=["crc", "md5", "parts"],
)
def test_one_other_bit_is_noticed(stored: StoredObject, by: Known, tmp_path: Path) -> None:
    assert check_of(stored, etag_is_md5=True).by is by
    assert holds(stored, DATA, tmp_path)
    for at in (0, MIN_PART_BYTES, len(DATA) - 1):
        assert not holds(stored, DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :], tmp_path)
    assert not holds(stored, DATA[:-1], tmp_path)
    assert not holds(stored, DATA + b"x", tmp_path)


@pytest.mark.parametrize(
    "stored",
    [
        replace(IN_PARTS, metadata={}),
        replace(IN_PARTS, metadata={META_PART_BASE: "1", META_PART_SIZING: "grow"}),
        replace(IN_PARTS, etag=IN_PARTS.etag.replace("-3", "-4")),
        replace(IN_PARTS, size=2**63),
        replace(PLAIN, etag=""),
        replace(PLAIN, may_have_md5=False),
        replace(PLAIN, etag=hashlib.sha256(b"").hexdigest()),
    ],
)
def test_what_is_not_told_is_not_made_up(stored: StoredObject) -> None:
    assert check_of(stored, etag_is_md5=True).by is Known.SIZE


def test_etags_of_other_stores_are_no_md5s() -> None:
    assert check_of(PLAIN, etag_is_md5=False).by is Known.SIZE
    assert check_of(WITH_CRC, etag_is_md5=False).by is Known.CRC64


def test_an_empty_object(tmp_path: Path) -> None:
    assert holds(StoredObject(key="k", size=0, etag="", crc64=0), b"", tmp_path)
    assert holds(StoredObject(key="k", size=0, etag=md5_of(b"")), b"", tmp_path)
