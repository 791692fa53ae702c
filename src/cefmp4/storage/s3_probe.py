"""Finds out what one endpoint proves, by sending it wrong checksums on an upload of a few bytes
that is removed again. Nothing is concluded from the name of the server."""

import asyncio
import hashlib
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from awscrt.checksums import crc64nvme

from cefmp4.errors import CefError, PermanentError, ProofFailedError, TransientError
from cefmp4.model.object import PartProof, StoreProof
from cefmp4.storage.checksum_form import multipart_etag, spell_crc64, spell_md5
from cefmp4.storage.s3_calls import S3Calls

log = structlog.get_logger()

PROBE_PREFIX = ".cefmp4-probe/"
_LEFTOVER_S = 600  # nobody probes that long: what is older was left by a process that was killed
_BODY = b"cefmp4 looks at what this server checks\n"
_MD5 = hashlib.md5(_BODY, usedforsecurity=False)
_CRC64 = crc64nvme(_BODY)
_WRONG_CRC64 = _CRC64 ^ 1
_WRONG_MD5 = hashlib.md5(b"other bytes", usedforsecurity=False)


async def probe_store(calls: S3Calls) -> StoreProof:
    """Raises PermanentError where the store can prove nothing at all."""
    proof, _ = await asyncio.gather(_Probe(calls).run(), _remove_leftovers(calls))
    log.debug("s3 server probed", **{name: getattr(proof, name) for name in proof.__slots__})
    return proof


@dataclass(slots=True)
class _Probe:
    calls: S3Calls
    key: str = field(default_factory=lambda: PROBE_PREFIX + secrets.token_hex(8))
    upload_id: str = ""
    is_completing: bool = False
    is_complete: bool = False
    has_odd_etag: bool = False

    async def run(self) -> StoreProof:
        declares_crc = await self._begin()
        try:
            return await self._look(declares_crc)
        finally:
            await self._remove()

    async def _begin(self) -> bool:
        """Whether the server took the declaration of a checksum of the whole object."""
        try:
            reply = await self.calls.call(
                "CreateMultipartUpload",
                Key=self.key,
                ChecksumAlgorithm="CRC64NVME",
                ChecksumType="FULL_OBJECT",
            )
        except (PermanentError, ProofFailedError) as refused:
            if not _is_plain(refused):
                raise
            reply = await self.calls.call("CreateMultipartUpload", Key=self.key)
            self.upload_id = reply["UploadId"]
            return False
        self.upload_id = reply["UploadId"]
        return True

    async def _look(self, declares_crc: bool) -> StoreProof:
        is_crc_checked, etag = await self._put_with_crcs()
        etag_is_md5 = etag == _MD5.hexdigest()
        if is_crc_checked:
            part = PartProof.CRC64NVME
        elif await self._is_refused(self._put(3, ContentMD5=spell_md5(_WRONG_MD5.digest()))):
            part = PartProof.CONTENT_MD5
        elif etag_is_md5:
            part = PartProof.ETAG
        else:
            raise PermanentError(
                "the S3 server checks no checksum and its ETags are no MD5s",
                hint="no upload to it could be proven",
            )
        full_object_crc = declares_crc and is_crc_checked and await self._checks_whole_object(etag)
        return StoreProof(
            part=part,
            full_object_crc=full_object_crc,
            etag_is_md5=etag_is_md5 and not self.has_odd_etag,
        )

    async def _put_with_crcs(self) -> tuple[bool, str]:
        """Whether a wrong CRC is refused and a right one is not, and the ETag of the right part."""
        right, wrong = await asyncio.gather(
            self._put(1, ChecksumCRC64NVME=spell_crc64(_CRC64)),
            self._is_refused(self._put(2, ChecksumCRC64NVME=spell_crc64(_WRONG_CRC64))),
            return_exceptions=True,
        )
        if isinstance(right, BaseException):
            if not _is_plain(right):
                raise right
            return False, await self._put(1)  # it minds the header, not the checksum
        if isinstance(wrong, BaseException):
            raise wrong
        return wrong, right

    async def _put(self, number: int, **checksum: str) -> str:
        reply = await self.calls.call(
            "UploadPart",
            Key=self.key,
            UploadId=self.upload_id,
            PartNumber=number,
            Body=_BODY,
            **checksum,
        )
        return str(reply.get("ETag", "")).strip('"')

    async def _is_refused(self, request: Any) -> bool:
        try:
            await request
        except TransientError:
            raise
        except CefError:
            return True
        return False

    async def _checks_whole_object(self, etag: str) -> bool:
        """A server that takes the header for the checksum of the request refuses the right one
        too, so both are tried."""
        if not await self._is_refused(self._complete(etag, _WRONG_CRC64)):
            return False
        return not await self._is_refused(self._complete(etag, _CRC64))

    async def _complete(self, etag: str, crc64: int) -> None:
        self.is_completing = True
        reply = await self.calls.call(
            "CompleteMultipartUpload",
            Key=self.key,
            UploadId=self.upload_id,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]},
            ChecksumCRC64NVME=spell_crc64(crc64),
            ChecksumType="FULL_OBJECT",
        )
        self.is_complete = True
        whole = str(reply.get("ETag", "")).strip('"')
        with suppress(ValueError):
            self.has_odd_etag = "-" in whole and whole != multipart_etag([etag])

    async def _remove(self) -> None:
        # A probe that cannot be removed now is removed by the next one.
        with suppress(CefError):
            if self.is_completing:  # done perhaps even where the answer said no
                await self.calls.call("DeleteObject", Key=self.key)
            if not self.is_complete:
                await self.calls.call("AbortMultipartUpload", Key=self.key, UploadId=self.upload_id)


def _is_plain(error: BaseException) -> bool:
    """A refusal of what was asked, not of who asks or where."""
    return type(error) in (PermanentError, ProofFailedError)


async def _remove_leftovers(calls: S3Calls) -> None:
    with suppress(CefError):  # some servers cannot list uploads; the probe itself tells the rest
        reply = await calls.call("ListMultipartUploads", Prefix=PROBE_PREFIX)
        for upload in reply.get("Uploads", []):
            if upload["Initiated"].timestamp() < time.time() - _LEFTOVER_S:
                await calls.call(
                    "AbortMultipartUpload", Key=upload["Key"], UploadId=upload["UploadId"]
                )
