"""Finds out what one endpoint proves, by sending it wrong checksums on an upload of a few bytes
that is removed again. Nothing is concluded from the name of the server."""

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from cefmp4.errors import (
    CefError,
    KeyTakenError,
    PermanentError,
    ProofFailedError,
    TransientError,
    UploadGoneError,
    first_error,
)
from cefmp4.model.names import META_STREAM_ID, PROBE_ROOT, is_probe_key
from cefmp4.model.object import PartProof, StoreProof
from cefmp4.recording.digests import crc_of, md5_of, multipart_etag, spell_crc64, spell_md5
from cefmp4.storage.s3.calls import S3Calls, body_of, etag_in
from cefmp4.tasks import together

log = structlog.get_logger()

PROBE_PREFIX = f"{PROBE_ROOT}/"
_LEFTOVER_S = 600  # nobody probes that long: what is older was left by a process that was killed
_FIRST = b"cefmp4 looks at what this server checks\n"
_FIRST_CRC64 = crc_of(_FIRST)
_FIRST_MD5 = md5_of(_FIRST)
_BODY = b"cefmp4 sends a part again, as it must do when a recorder goes back\n"
_BODY_CRC64 = crc_of(_BODY)
_MOST_BYTES = 4096  # of an answer that should be that body
_MARK = {META_STREAM_ID: "cefmp4-probe"}
_WHY_REPLACE = (
    "recorders change what was sent already: take another server, or another version of it"
)
_WRONG_MD5 = md5_of(b"other bytes")


async def probe_store(calls: S3Calls) -> StoreProof:
    """Raises PermanentError where the store can prove nothing at all, or cannot replace a part."""
    with first_error():
        async with asyncio.TaskGroup() as group:
            group.create_task(_remove_leftovers(calls), name="leftovers of probes")
            proof = await _Probe(calls).run()
    log.debug("s3 server probed", **{name: getattr(proof, name) for name in proof.__slots__})
    return proof


@dataclass(slots=True)
class _Probe:
    calls: S3Calls
    key: str = field(default_factory=lambda: PROBE_PREFIX + secrets.token_hex(8))
    upload_id: str = ""
    open_ids: set[str] = field(default_factory=set)
    is_completing: bool = False
    has_odd_etag: bool = False

    async def run(self) -> StoreProof:
        declares_crc = await self._begin()
        try:
            return await self._look(declares_crc)
        except UploadGoneError as gone:
            raise PermanentError(
                f"the S3 server threw an upload away because of one refused part: {gone}",
                hint=_WHY_REPLACE,
            ) from None
        finally:
            await self._remove()

    async def _begin(self) -> bool:
        """Whether the server took the declaration of a checksum of the whole object."""
        try:
            await self._create(ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
        except (PermanentError, ProofFailedError) as refused:
            if not _is_plain(refused):
                raise
            await self._create()
            return False
        return True

    async def _create(self, **checksum: str) -> None:
        reply = await self.calls.call(
            "CreateMultipartUpload", Key=self.key, Metadata=_MARK, **checksum
        )
        self.upload_id = reply["UploadId"]
        self.open_ids.add(self.upload_id)

    async def _look(self, declares_crc: bool) -> StoreProof:
        is_crc_checked, etag = await self._put_with_crcs()
        etag_is_md5 = etag == _FIRST_MD5
        if is_crc_checked:
            part = PartProof.CRC64NVME
        elif await self._is_refused(self._put(3, ContentMD5=spell_md5(_WRONG_MD5))):
            part = PartProof.CONTENT_MD5
        elif etag_is_md5:
            part = PartProof.ETAG
        else:
            raise PermanentError(
                "the S3 server checks no checksum and its ETags are no MD5s",
                hint="no upload to it could be proven",
            )
        etag = await self._replace_part()
        full_object_crc = declares_crc and is_crc_checked and await self._checks_whole_object(etag)
        if self.open_ids:
            await self._complete(etag)
        keeps_metadata = await self._read_back()
        put_if_absent, complete_if_absent = await together(
            self._minds_taken_key("PutObject", Body=_BODY), self._minds_at_complete()
        )
        return StoreProof(
            part=part,
            full_object_crc=full_object_crc,
            etag_is_md5=etag_is_md5 and not self.has_odd_etag,
            put_if_absent=put_if_absent,
            complete_if_absent=complete_if_absent,
            keeps_metadata=keeps_metadata,
        )

    async def _put_with_crcs(self) -> tuple[bool, str]:
        """Whether a wrong CRC is refused and a right one is not, and the ETag of the right part."""
        right, wrong = await asyncio.gather(
            self._put(1, ChecksumCRC64NVME=spell_crc64(_FIRST_CRC64)),
            self._is_refused(self._put(2, ChecksumCRC64NVME=spell_crc64(_FIRST_CRC64 ^ 1))),
            return_exceptions=True,
        )
        if isinstance(right, BaseException):
            if not _is_plain(right):
                raise right
            return False, await self._put(1)  # it minds the header, not the checksum
        if isinstance(wrong, BaseException):
            raise wrong
        return wrong, right

    async def _put(self, number: int, body: bytes = _FIRST, **checksum: str) -> str:
        reply = await self.calls.call(
            "UploadPart",
            Key=self.key,
            UploadId=self.upload_id,
            PartNumber=number,
            Body=body,
            **checksum,
        )
        return etag_in(reply)

    async def _is_refused(self, request: Any) -> bool:
        try:
            await request
        except TransientError:
            raise
        except CefError:
            return True
        return False

    async def _replace_part(self) -> str:
        try:
            return await self._put(1, _BODY)
        except CefError as refused:
            if not _is_plain(refused):
                raise
            raise PermanentError(
                f"the S3 server cannot replace a part that it has: {refused}", hint=_WHY_REPLACE
            ) from None

    async def _checks_whole_object(self, etag: str) -> bool:
        """A server that takes the header for the checksum of the request refuses the right one
        too, so both are tried."""
        if not await self._is_refused(self._complete(etag, _BODY_CRC64 ^ 1)):
            return False
        return not await self._is_refused(self._complete(etag, _BODY_CRC64))

    async def _complete(self, etag: str, crc64: int | None = None) -> None:
        self.is_completing = True
        checksum = {}
        if crc64 is not None:
            checksum = {"ChecksumCRC64NVME": spell_crc64(crc64), "ChecksumType": "FULL_OBJECT"}
        reply = await self.calls.call(
            "CompleteMultipartUpload", **self._with_part(etag), **checksum
        )
        self.open_ids.clear()
        whole = etag_in(reply)
        with suppress(ValueError):
            self.has_odd_etag = "-" in whole and whole != multipart_etag([etag])

    def _with_part(self, etag: str) -> dict[str, Any]:
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        return {"Key": self.key, "UploadId": self.upload_id, "MultipartUpload": parts}

    async def _read_back(self) -> bool:
        """Whether the object tells its user metadata. Raises where it is not of the last bytes."""
        reply = await self.calls.call("GetObject", Key=self.key)
        if await body_of(reply, self.key, most=_MOST_BYTES) != _BODY:
            raise PermanentError(
                "the S3 server does not store the last version of a part", hint=_WHY_REPLACE
            )
        return {name.lower(): value for name, value in reply.get("Metadata", {}).items()} == _MARK

    async def _minds_at_complete(self) -> bool:
        await self._create()
        etag = await self._put(1, _BODY)
        return await self._minds_taken_key("CompleteMultipartUpload", **self._with_part(etag))

    async def _minds_taken_key(self, operation: str, **params: Any) -> bool:
        """Whether the server keeps the object that is there, as it is asked to. Some do not know
        the question, and some do not hear it."""
        try:
            await self.calls.call(operation, **{"Key": self.key, **params}, IfNoneMatch="*")
        except KeyTakenError:
            return True
        except CefError as refused:
            if not _is_plain(refused):
                raise
        return False

    async def _remove(self) -> None:
        # A probe that cannot be removed now is removed by the next one.
        if self.is_completing:  # done perhaps even where the answer said no
            with suppress(CefError):
                await self.calls.call("DeleteObject", Key=self.key)
        for upload_id in self.open_ids:
            with suppress(CefError):
                await self.calls.call("AbortMultipartUpload", Key=self.key, UploadId=upload_id)


def _is_plain(error: BaseException) -> bool:
    """A refusal of what was asked, not of who asks or where."""
    return type(error) in (PermanentError, ProofFailedError)


async def _remove_leftovers(calls: S3Calls) -> None:
    with suppress(CefError):  # some servers cannot list uploads; the probe itself tells the rest
        reply = await calls.call("ListMultipartUploads", Prefix=PROBE_PREFIX)
        for upload in reply.get("Uploads", []):
            is_old = upload["Initiated"].timestamp() < time.time() - _LEFTOVER_S
            if is_old and is_probe_key(upload["Key"]):
                await calls.call(
                    "AbortMultipartUpload", Key=upload["Key"], UploadId=upload["UploadId"]
                )
