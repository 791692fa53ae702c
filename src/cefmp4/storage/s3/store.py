"""The S3 adapter: the calls of the ObjectStore port, and the proof of what they stored."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from cefmp4.errors import (
    CefError,
    KeyTakenError,
    ProofFailedError,
    StoreFullError,
    TransientError,
    UploadGoneError,
)
from cefmp4.model.names import META_CRC64, META_STREAM_ID, stream_id_in
from cefmp4.model.object import (
    FileRange,
    ListedPart,
    OpenUpload,
    PartProof,
    StoredObject,
    StoreProof,
)
from cefmp4.model.part import MIB, Part
from cefmp4.recording.digests import crc_and_md5, md5_of, spell_crc64, spell_hex_crc64, spell_md5
from cefmp4.storage.s3 import listing
from cefmp4.storage.s3.calls import S3Calls, S3Object, body_of, etag_in
from cefmp4.storage.s3.connect import S3Config, connect
from cefmp4.storage.s3.errors import KeyMissingError, RangeMissingError, unreadable
from cefmp4.storage.s3.part_transfer import BodyTransfer
from cefmp4.storage.s3.probe import PROBE_PREFIX, probe_store
from cefmp4.storage.s3.readback import Finding, ReadBack

__all__ = ["S3Config", "S3Store", "open_s3_store"]

MAX_READ_BYTES = 64 * MIB


@asynccontextmanager
async def open_s3_store(
    config: S3Config, *, proof: StoreProof | None = None
) -> AsyncIterator["S3Store"]:
    """`proof` is what an earlier `store.proof` of the same endpoint said; None finds it out."""
    async with connect(config) as (calls, transfer):
        yield S3Store(calls, transfer, proof or await probe_store(calls))


class S3Store:
    """One bucket of one endpoint, seen as the ObjectStore port."""

    def __init__(self, calls: S3Calls, transfer: BodyTransfer, proof: StoreProof) -> None:
        self._calls = calls
        self._transfer = transfer
        self.proof = proof
        self._readback = ReadBack(calls, proof)
        self._unanswered: set[str] = set()  # keys whose last start of an upload got no answer
        self._begun_twice: set[str] = set()  # perhaps, because the listing did not show the first

    def __repr__(self) -> str:
        return f"<S3Store {self._calls.bucket} {self._transfer!r} {self.proof}>"

    async def put_object(
        self,
        key: str,
        body: FileRange | bytes,
        *,
        content_type: str,
        metadata: dict[str, str],
        crc64: int,
        if_absent: bool = False,
    ) -> str:
        params: dict[str, Any] = {
            "Key": key,
            "ContentType": content_type,
            "Metadata": {META_CRC64: spell_hex_crc64(crc64), **metadata},
        }

        size = len(body) if isinstance(body, bytes) else body.size
        read_back = partial(
            self._readback.compare_whole,
            key,
            size=size,
            crc64=crc64,
            owner=metadata.get(META_STREAM_ID, ""),
        )
        try:
            params |= await self._condition(
                key, if_absent=if_absent, is_honoured=self.proof.put_if_absent
            )
            etag = await self._send("PutObject", params, body, crc64)
        except KeyTakenError:
            finding = await read_back(etag="")
            if not finding.is_certain or finding.stored is None:
                raise
            return finding.stored.etag  # it was stored, and the answer was lost
        return etag if isinstance(body, bytes) else _proven(key, await read_back(etag=etag))

    async def begin_upload(self, key: str, *, content_type: str, metadata: dict[str, str]) -> str:
        params: dict[str, Any] = {"Key": key, "ContentType": content_type, "Metadata": metadata}
        if self.proof.full_object_crc:
            params |= {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
        return await self._calls.repeat(
            "CreateMultipartUpload", lambda: self._begin_once(key, params)
        )

    async def _begin_once(self, key: str, params: dict[str, Any]) -> str:
        """A start whose answer was lost is found again, or every lost answer leaves an upload open
        that nobody knows. Only a key with a stream id is surely ours alone."""
        if key in self._unanswered:
            begun = await listing.list_uploads(self._calls, key)
            for upload in begun:
                if upload.key == key:
                    self._unanswered.discard(key)
                    return upload.upload_id
            self._begun_twice.add(key)
        if stream_id_in(key) is not None:
            self._unanswered.add(key)
        reply = await self._calls.once("CreateMultipartUpload", **params)
        self._unanswered.discard(key)
        return str(reply["UploadId"])

    async def try_writing(self) -> None:
        """Raises AccessDeniedError where nothing may be stored. A full disk is no refusal: whoever
        starts meanwhile says so, and waits for room with each recording."""
        key = PROBE_PREFIX + secrets.token_hex(8)
        try:
            reply = await self._calls.call("CreateMultipartUpload", Key=key)
        except StoreFullError:
            return
        with suppress(CefError):  # the next probe of the server looks for leftovers
            await self.abort_upload(key, reply["UploadId"])

    async def put_part(
        self, key: str, upload_id: str, number: int, body: FileRange, *, crc64: int
    ) -> str:
        params = {"Key": key, "UploadId": upload_id, "PartNumber": number}
        return await self._send("UploadPart", params, body, crc64)

    async def copy_part(
        self, key: str, upload_id: str, number: int, *, source: StoredObject, start: int, end: int
    ) -> str:
        reply = await self._calls.call(
            "UploadPartCopy",
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
            CopySource={"Bucket": self._calls.bucket, "Key": source.key},
            CopySourceRange=f"bytes={start}-{end - 1}",
            CopySourceIfMatch=f'"{source.etag}"',
        )
        return etag_in(reply.get("CopyPartResult", {}))

    async def list_parts(self, key: str, upload_id: str) -> list[ListedPart]:
        return await listing.list_parts(self._calls, key, upload_id)

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        crc64: int,
        owner: str = "",
        if_absent: bool = False,
    ) -> str:
        params: dict[str, Any] = {
            "Key": key,
            "UploadId": upload_id,
            "MultipartUpload": {
                "Parts": [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
            },
        }
        if self.proof.full_object_crc:
            params |= {"ChecksumCRC64NVME": spell_crc64(crc64), "ChecksumType": "FULL_OBJECT"}
        try:
            params |= await self._condition(
                key, if_absent=if_absent, is_honoured=self.proof.complete_if_absent
            )
            await self._calls.call("CompleteMultipartUpload", **params)
        except (UploadGoneError, KeyTakenError, TransientError) as error:
            return await self._settle(key, upload_id, parts, crc64, owner, error)
        finding = await self._readback.compare_parts(key, parts, crc64=crc64, owner=owner)
        etag = _proven(key, finding)
        await self._end_others(key, upload_id)
        return etag

    async def abort_upload(self, key: str, upload_id: str) -> None:
        with suppress(UploadGoneError):
            await self._calls.call("AbortMultipartUpload", Key=key, UploadId=upload_id)
        await self._end_others(key, upload_id)

    async def _end_others(self, key: str, upload_id: str) -> None:
        """What a start that seemed to fail has left after all. If not now, it is an orphan."""
        if key not in self._begun_twice:
            return
        self._begun_twice.discard(key)
        with suppress(CefError):
            for other in await listing.list_uploads(self._calls, key):
                if other.key == key and other.upload_id != upload_id:
                    await self._calls.call(
                        "AbortMultipartUpload", Key=key, UploadId=other.upload_id
                    )

    async def list_uploads(self, prefix: str) -> list[OpenUpload]:
        return await listing.list_uploads(self._calls, prefix)

    async def head(self, key: str) -> StoredObject | None:
        return (await self._readback.look(key))[0]

    async def read(
        self, key: str, start: int = 0, end: int | None = None, *, etag: str = ""
    ) -> bytes:
        """At most 64 MiB; a range beyond the end of the object gives what there is."""
        if end is not None and end <= start:
            return b""
        try:
            return await self._calls.repeat("GetObject", lambda: self._read(key, start, end, etag))
        except RangeMissingError:
            return b""

    def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        return listing.list_objects(self._calls, prefix)

    async def find_object(self, key: str, *, bucket: str = "") -> S3Object:
        return await self._calls.find(key, bucket=bucket)

    async def delete(self, key: str) -> None:
        with suppress(KeyMissingError):
            await self._calls.call("DeleteObject", Key=key)

    async def _send(
        self, operation: str, params: dict[str, Any], body: FileRange | bytes, crc64: int
    ) -> str:
        md5 = ""
        if self.proof.part is PartProof.CRC64NVME:
            params["ChecksumCRC64NVME"] = spell_crc64(crc64)
        else:
            md5 = await _md5_of(body, crc64)
        if md5 and self.proof.part is PartProof.CONTENT_MD5:
            params["ContentMD5"] = spell_md5(md5)
        etag = await self._transfer.send(operation, params, body)
        if md5 and self.proof.etag_is_md5 and etag != md5:
            raise ProofFailedError(f"{params['Key']}: S3 stored other bytes than were read")
        return etag

    async def _settle(
        self, key: str, upload_id: str, parts: Sequence[Part], crc64: int, owner: str, why: CefError
    ) -> str:
        """Complete may have worked while its answer was lost. Only an object that is provably ours
        counts: one that merely has the right size may be of another upload to the same key. And
        only a whole Complete does: a server that failed in the middle of it, for a full disk say,
        may show the object and keep the upload, too, or leave the object out of its listing. It
        says then that the key is taken, where it is asked once more."""
        finding = await self._readback.compare_parts(key, parts, crc64=crc64, owner=owner)
        if finding.stored and finding.is_certain:
            is_closed = isinstance(why, UploadGoneError)
            if is_closed or await self._readback.is_closed(key, upload_id):
                return finding.stored.etag
        raise why

    async def _condition(self, key: str, *, if_absent: bool, is_honoured: bool) -> dict[str, str]:
        """The header that has the server refuse a taken key; KeyTakenError where it would not, and
        the key is taken."""
        if if_absent and is_honoured:
            return {"IfNoneMatch": "*"}
        if if_absent and await self.head(key) is not None:
            raise KeyTakenError(f"{key}: there is an object already")
        return {}

    async def _read(self, key: str, start: int, end: int | None, etag: str) -> bytes:
        ranged = start > 0 or end is not None
        wanted = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if ranged else {}
        if etag:
            wanted["IfMatch"] = f'"{etag}"'
        reply = await self._calls.once("GetObject", Key=key, **wanted)
        data = await body_of(reply, key, most=MAX_READ_BYTES)
        is_whole = reply["ResponseMetadata"]["HTTPStatusCode"] == 200  # the range was ignored
        return data[start:end] if ranged and is_whole else data


def _proven(key: str, finding: Finding) -> str:
    if finding.stored is None or finding.difference:
        raise ProofFailedError(f"{key}: the object {finding.difference or 'is missing'}")
    return finding.stored.etag


async def _md5_of(body: FileRange | bytes, crc64: int) -> str:
    if isinstance(body, bytes):
        return md5_of(body)
    try:
        found = await asyncio.to_thread(crc_and_md5, body.fd, body.offset, body.offset + body.size)
    except OSError as error:
        raise unreadable(error) from error
    if found is None or found[0] != crc64:
        raise ProofFailedError("the bytes changed between hashing and sending")
    return found[1]
