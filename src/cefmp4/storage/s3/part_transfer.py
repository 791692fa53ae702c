"""Sends the bytes of parts and objects the cheapest way that the server takes: a presigned PUT from
a thread, else the client library."""

import asyncio
import io
import os
from typing import Any

import structlog
from botocore import xform_name
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth
from yarl import URL

from cefmp4.errors import ServerUnreachableError, SourceError
from cefmp4.model.object import FileRange
from cefmp4.recording.digests import ShortFileError, hash_range, new_sha256
from cefmp4.storage.s3.calls import S3Calls, etag_in
from cefmp4.storage.s3.errors import (
    FOREIGN_ERRORS,
    Refusal,
    became_shorter,
    refusal_from_reply,
    to_error,
    unreadable,
)
from cefmp4.storage.s3.range_put import RangeSender

log = structlog.get_logger()

# A 5 GiB part on a slow line: the signature is only looked at when the request starts.
_URL_LIFETIME_S = 3600
_PREHASHED = "cefmp4-s3v4"
_HEADERS = {
    "ChecksumCRC64NVME": "x-amz-checksum-crc64nvme",
    "ContentMD5": "Content-MD5",
    "ContentType": "Content-Type",
    "IfNoneMatch": "If-None-Match",
}


class RangeFile(io.RawIOBase):
    """The range as a seekable file, for the client library. It never reads past the range."""

    def __init__(self, body: FileRange, *, sha256: str = "") -> None:
        super().__init__()
        self._range = body
        self._position = 0
        self.sha256 = sha256
        self.failure: SourceError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def __len__(self) -> int:
        return self._range.size

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._range.size}
        self._position = max(0, start[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(0, self._range.size - self._position))
        if not count:
            return 0
        try:
            count = os.preadv(self._range.fd, [view[:count]], self._range.offset + self._position)
        except OSError as error:
            self.failure = unreadable(error)
            raise
        self._position += count
        return count


class _PrehashedAuth(S3SigV4Auth):
    """Takes the body's hash from the body, where a thread has computed it, instead of reading the
    whole part on the event loop."""

    def payload(self, request: Any) -> str:
        if isinstance(request.body, RangeFile) and request.body.sha256:
            return request.body.sha256
        return str(super().payload(request))


AUTH_TYPE_MAPS[_PREHASHED] = _PrehashedAuth


def _choose_signer(signature_version: str, **_: Any) -> str | None:
    return None if signature_version.endswith("-query") else _PREHASHED


class BodyTransfer:
    """Without a `sender` the client library sends everything."""

    def __init__(self, calls: S3Calls, sender: RangeSender | None) -> None:
        self._calls = calls
        self._sender = sender
        self._has_presigned = False  # the server has taken a presigned PUT before
        for operation in ("UploadPart", "PutObject"):
            calls.client.meta.events.register(f"choose-signer.s3.{operation}", _choose_signer)

    def __repr__(self) -> str:
        return f"<BodyTransfer {'presigned' if self._sender else 'client'}>"

    async def send(self, operation: str, params: dict[str, Any], body: FileRange | bytes) -> str:
        """Returns the ETag."""
        return await self._calls.repeat(operation, lambda: self._attempt(operation, params, body))

    async def _attempt(
        self, operation: str, params: dict[str, Any], body: FileRange | bytes
    ) -> str:
        if self._sender is None:
            return await self._send_by_client(operation, params, body)
        url = await self._calls.client.generate_presigned_url(
            xform_name(operation),
            Params={"Bucket": self._calls.bucket, **params},
            ExpiresIn=_URL_LIFETIME_S,
            HttpMethod="PUT",
        )
        reply = await self._sender.put(URL(url, encoded=True), _signed_headers(params), body)
        if reply.status >= 300:
            refusal = refusal_from_reply(operation, reply.status, reply.headers, reply.text)
            if self._has_presigned or not _may_mean_presigning(refusal):
                raise to_error(refusal)
            return await self._fall_back(operation, params, body, refusal)
        if not reply.is_whole:
            raise ServerUnreachableError(f"S3 answered {operation} before it had every byte")
        self._has_presigned = True
        return etag_in(reply.headers)

    async def _fall_back(
        self, operation: str, params: dict[str, Any], body: FileRange | bytes, refusal: Refusal
    ) -> str:
        """If the client library fares no better, presigning was not what the server minded."""
        etag = await self._send_by_client(operation, params, body)
        self._sender = None
        log.warning(
            "the S3 server refuses presigned uploads, the client library sends parts from now on",
            refused_with=str(refusal),
        )
        return etag

    async def _send_by_client(
        self, operation: str, params: dict[str, Any], body: FileRange | bytes
    ) -> str:
        content: RangeFile | bytes
        if isinstance(body, bytes):
            content = body
        else:
            content = RangeFile(body, sha256=await asyncio.to_thread(_sha256_of, body))
        try:
            reply = await self._calls.once(operation, Body=content, **params)
        except FOREIGN_ERRORS:
            if isinstance(content, RangeFile) and content.failure is not None:
                raise content.failure from None
            raise
        return etag_in(reply)


def _sha256_of(body: FileRange) -> str:
    digest = new_sha256()
    try:
        hash_range(body.fd, body.offset, body.offset + body.size, also=(digest,))
    except ShortFileError:
        raise became_shorter() from None
    except OSError as error:
        raise unreadable(error) from error
    return digest.hexdigest()


def _may_mean_presigning(refusal: Refusal) -> bool:
    return refusal.status in {400, 401, 403, 405, 501} and not refusal.is_checksum


def _signed_headers(params: dict[str, Any]) -> dict[str, str]:
    headers = {_HEADERS[name]: value for name, value in params.items() if name in _HEADERS}
    for name, value in params.get("Metadata", {}).items():
        headers[f"x-amz-meta-{name}"] = value
    return headers
