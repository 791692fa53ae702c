"""What the store tells about its objects and open uploads, and what it can prove."""

from dataclasses import dataclass, field
from enum import StrEnum

from cefmp4.model.names import stream_id_in


class PartProof(StrEnum):
    """How the store is seen to reject a part that arrives with other bytes than we hashed."""

    CRC64NVME = "crc64nvme"  # it refuses a wrong x-amz-checksum-crc64nvme
    CONTENT_MD5 = "content-md5"  # it refuses a wrong Content-MD5
    ETAG = "etag"  # it checks nothing, but its ETag is the MD5 of the part


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreProof:
    """What one endpoint was seen to do; found once by trying, never guessed from its name."""

    part: PartProof
    full_object_crc: bool  # Complete refuses a wrong FULL_OBJECT CRC-64/NVME
    etag_is_md5: bool  # a part's ETag is its MD5, an object's the MD5 of those, "-", the count
    # What is not seen is asked before, and looked at after.
    put_if_absent: bool = False  # PutObject refuses a taken key with If-None-Match: *
    complete_if_absent: bool = False  # Complete does
    keeps_metadata: bool = True  # HeadObject tells the user metadata of an object


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPart:
    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenUpload:
    key: str
    upload_id: str
    initiated_at: float

    @property
    def is_ours(self) -> bool:
        """Surely: others may share the bucket and prefix, but no stream id."""
        return stream_id_in(self.key) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    key: str
    size: int
    etag: str
    crc64: int | None = None
    modified_at: float = 0.0
    content_type: str = ""
    may_have_md5: bool = True  # False: it is encrypted in a way that makes its ETag no MD5
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileRange:
    """`size` bytes of the open file `fd` from `offset` on: how bytes are handed to the store."""

    fd: int
    offset: int
    size: int
