"""Checksums: of the ranges of a recording, of bytes in memory, of a whole from its parts, and how
they are written. A range is read once, whatever is wanted of it. Everything that reads blocks."""

import hashlib
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from typing import TypeAlias

from awscrt import checksums

READ_BYTES = 1024 * 1024  # fits the processor's cache, so that hashing re-reads nothing from memory

Digest: TypeAlias = "hashlib._Hash"


class ShortFileError(Exception):
    """The file ended before the range did: it was truncated meanwhile."""


def new_sha256() -> Digest:
    return hashlib.sha256()


def hash_range(
    fd: int,
    start: int,
    end: int,
    *,
    also: tuple[Digest, ...] = (),
    is_stopped: Callable[[], bool] = lambda: False,
) -> int:
    """The CRC-64/NVME of [start, end), feeding `also` from the same read."""
    buffer = memoryview(bytearray(min(READ_BYTES, max(end - start, 1))))
    crc64, offset = 0, start
    while offset < end:
        if is_stopped():
            raise ShortFileError
        count = os.preadv(fd, [buffer[: min(len(buffer), end - offset)]], offset)
        if count == 0:
            raise ShortFileError
        chunk = buffer[:count]
        crc64 = checksums.crc64nvme(chunk, crc64)
        for digest in also:
            digest.update(chunk)
        offset += count
    return crc64


def holds_crc(
    fd: int, start: int, size: int, crc64: int, *, is_stopped: Callable[[], bool] = lambda: False
) -> bool:
    """Whether the file has these bytes there; False where it is shorter, or it was stopped."""
    try:
        return hash_range(fd, start, start + size, is_stopped=is_stopped) == crc64
    except ShortFileError:
        return False


def crc_and_md5(
    fd: int,
    start: int,
    end: int,
    *,
    also: tuple[Digest, ...] = (),
    is_stopped: Callable[[], bool] = lambda: False,
) -> tuple[int, str] | None:
    """Of [start, end), the MD5 as an ETag has it; None where the file is shorter, or it was
    stopped."""
    md5 = hashlib.md5(usedforsecurity=False)
    try:
        crc64 = hash_range(fd, start, end, also=(*also, md5), is_stopped=is_stopped)
        return crc64, md5.hexdigest()
    except ShortFileError:
        return None


def crc_of(data: bytes) -> int:
    return int(checksums.crc64nvme(data))


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def combine_crcs(parts: Iterable[tuple[int, int]]) -> int:
    """The CRC-64/NVME of a whole from the (crc, size) of its parts in order."""
    total = 0
    for crc64, size in parts:
        total = int(checksums.combine_crc64nvme(total, crc64, size))
    return total


def multipart_etag(part_etags: Iterable[str]) -> str:
    """The ETag of an object from those of its parts in order, where a store's ETags are MD5s; empty
    where one is none, as Redis may claim."""
    try:
        digests = [bytes.fromhex(etag) for etag in part_etags]
    except ValueError:
        return ""
    return f"{md5_of(b''.join(digests))}-{len(digests)}"


def spell_crc64(crc64: int) -> str:
    """As S3 and the metadata document have it: base64, the most significant byte first."""
    return b64encode(crc64.to_bytes(8, "big")).decode()


def read_crc64(text: str | None) -> int | None:
    """None for what is not the CRC-64 of a whole object: one made of parts' ends in `-N`."""
    try:
        raw = b64decode(text or "", validate=True)
    except ValueError:
        return None
    return int.from_bytes(raw, "big") if len(raw) == 8 else None


def spell_hex_crc64(crc64: int) -> str:
    """As the user metadata of an object has it."""
    return f"{crc64:016x}"


def read_hex_crc64(text: str | None) -> int | None:
    return int(text, 16) if text and re.fullmatch("[0-9a-fA-F]{16}", text) else None


def spell_md5(md5: str) -> str:
    """As the header Content-MD5 has it."""
    return b64encode(bytes.fromhex(md5)).decode()
