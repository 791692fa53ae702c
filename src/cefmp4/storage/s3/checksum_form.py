"""How S3 spells checksums: base64 of the big-endian bytes."""

import re
from base64 import b64decode, b64encode
from hashlib import md5


def spell_crc64(crc64: int) -> str:
    return b64encode(crc64.to_bytes(8, "big")).decode()


def read_crc64(text: str | None) -> int | None:
    """None for what is not the CRC-64 of a whole object: one made of parts' ends in `-N`."""
    try:
        raw = b64decode(text or "", validate=True)
    except ValueError:
        return None
    return int.from_bytes(raw, "big") if len(raw) == 8 else None


def read_hex_crc64(text: str | None) -> int | None:
    return int(text, 16) if text and re.fullmatch("[0-9a-fA-F]{16}", text) else None


def spell_md5(digest: bytes) -> str:
    return b64encode(digest).decode()


def multipart_etag(part_etags: list[str]) -> str:
    """The ETag of an object from those of its parts, where a store's ETags are MD5s. Raises
    ValueError where a part's is none."""
    joined = b"".join(bytes.fromhex(etag) for etag in part_etags)
    return f"{md5(joined, usedforsecurity=False).hexdigest()}-{len(part_etags)}"
