"""What really lies under a key, and whether it is what was meant to: the last word of the proof."""

from collections.abc import Sequence
from dataclasses import dataclass

from cefmp4.errors import UploadGoneError
from cefmp4.model.names import META_CRC64, META_STREAM_ID
from cefmp4.model.object import StoredObject, StoreProof
from cefmp4.model.part import Part
from cefmp4.recording.digests import multipart_etag, read_crc64, read_hex_crc64
from cefmp4.storage.s3.calls import S3Calls, etag_in
from cefmp4.storage.s3.errors import KeyMissingError


@dataclass(frozen=True, slots=True)
class Finding:
    """`difference` "": none was found; `is_proven`: a checksum says that there is none."""

    stored: StoredObject | None
    difference: str = ""
    is_proven: bool = False

    @property
    def is_certain(self) -> bool:
        return self.stored is not None and not self.difference and self.is_proven


class ReadBack:
    def __init__(self, calls: S3Calls, proof: StoreProof) -> None:
        self._calls = calls
        self._proof = proof

    async def look(self, key: str) -> tuple[StoredObject | None, int | None]:
        """The object, and the checksum of it that the server itself vouches for."""
        mode = {"ChecksumMode": "ENABLED"} if self._proof.full_object_crc else {}
        try:
            reply = await self._calls.call("HeadObject", Key=key, **mode)
        except KeyMissingError:
            return None, None
        metadata = {name.lower(): value for name, value in reply.get("Metadata", {}).items()}
        vouched = read_crc64(reply.get("ChecksumCRC64NVME"))
        stored = StoredObject(
            key=key,
            size=reply["ContentLength"],
            etag=etag_in(reply),
            crc64=read_hex_crc64(metadata.get(META_CRC64)) if vouched is None else vouched,
            modified_at=reply["LastModified"].timestamp(),
            content_type=reply.get("ContentType", ""),
            may_have_md5=not (
                str(reply.get("ServerSideEncryption", "")).startswith("aws:kms")
                or reply.get("SSECustomerAlgorithm")
            ),
            metadata=metadata,
        )
        return stored, vouched

    async def compare_whole(
        self, key: str, *, size: int, etag: str, crc64: int, owner: str
    ) -> Finding:
        """With what was put as one body; `etag` "": not known."""
        stored, _ = await self.look(key)
        if stored is None:
            return Finding(None)
        if difference := self._other_object(stored, size, owner):
            return Finding(stored, difference)
        if etag and stored.etag != etag:
            return Finding(stored, "has another ETag")
        # What a server without metadata cannot tell of the owner, it cannot tell of the bytes.
        noted = read_hex_crc64(stored.metadata.get(META_CRC64))
        return Finding(stored, "", is_proven=bool(owner) and noted == crc64)

    async def compare_parts(
        self, key: str, parts: Sequence[Part], *, crc64: int, owner: str
    ) -> Finding:
        stored, vouched = await self.look(key)
        if stored is None:
            return Finding(None)
        if difference := self._other_object(stored, sum(part.size for part in parts), owner):
            return Finding(stored, difference)
        if vouched is not None and vouched != crc64:
            return Finding(stored, "has another checksum")
        is_proven = vouched is not None
        # Servers that give the MD5 of the whole as the ETag of a multipart object have no "-".
        if self._proof.etag_is_md5 and "-" in stored.etag:
            if stored.etag != multipart_etag(part.etag for part in parts):
                return Finding(stored, "has another ETag")
            is_proven = True
        return Finding(stored, "", is_proven)

    async def is_closed(self, key: str, upload_id: str) -> bool:
        """Whether the upload is at its end. Some servers go on to list the parts of one that is."""
        try:
            await self._calls.call("ListParts", Key=key, UploadId=upload_id)
        except UploadGoneError:
            return True
        return False

    def _other_object(self, stored: StoredObject, size: int, owner: str) -> str:
        if stored.size != size:
            return f"has {stored.size} bytes instead of {size}"
        if owner and self._proof.keeps_metadata:
            found = stored.metadata.get(META_STREAM_ID, "")
            if found != owner:
                return f"is of {found or 'nobody that we know'} instead of {owner}"
        return ""
