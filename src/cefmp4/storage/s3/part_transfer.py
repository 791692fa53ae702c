"""Sends the bytes of parts and objects the cheapest way that the server takes: a presigned PUT
whose body the kernel sends, or OpenSSL in a thread, else the client library."""

import asyncio
from typing import Any

import aiohttp
import structlog
from botocore import xform_name
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth
from yarl import URL

from cefmp4.config.ingest import PartTransfer
from cefmp4.errors import ProofFailedError, ServerUnreachableError
from cefmp4.model.object import FileRange
from cefmp4.recording.digests import ShortFileError, hash_range, new_sha256
from cefmp4.storage.s3.calls import etag_in
from cefmp4.storage.s3.errors import (
    FOREIGN_ERRORS,
    MAX_ERROR_BODY,
    Refusal,
    refusal_from_reply,
    to_error,
    translate,
)
from cefmp4.storage.s3.file_body import BECAME_SHORTER, RangeFile, RangePayload, unreadable
from cefmp4.storage.s3.tls_put import Reply, TlsSender

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


class _RefusedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self.refusal = refusal


class BodyTransfer:
    """`send` makes one attempt and returns the ETag."""

    def __init__(
        self,
        client: Any,
        http: aiohttp.ClientSession,
        *,
        bucket: str,
        transfer: PartTransfer,
        tls: TlsSender | None = None,
        proxy: str | None = None,
    ) -> None:
        self._client = client
        self._http = http
        self._tls = tls
        self._bucket = bucket
        self._proxy = proxy
        self._is_presigning = transfer is PartTransfer.AUTO
        self._has_presigned = False  # the server has taken a presigned PUT before

    def __repr__(self) -> str:
        return f"<BodyTransfer {'presigned' if self._is_presigning else 'client'}>"

    def install(self) -> None:
        for operation in ("UploadPart", "PutObject"):
            self._client.meta.events.register(f"choose-signer.s3.{operation}", _choose_signer)

    async def send(self, operation: str, params: dict[str, Any], body: FileRange | bytes) -> str:
        if not self._is_presigning or isinstance(body, bytes):
            return await self._send_by_client(operation, params, body)
        try:
            etag = await self._send_presigned(operation, params, body)
        except _RefusedError as refused:
            if self._has_presigned or not _may_mean_presigning(refused.refusal):
                raise to_error(refused.refusal) from None
            return await self._fall_back(operation, params, body, refused.refusal)
        self._has_presigned = True
        return etag

    async def _fall_back(
        self, operation: str, params: dict[str, Any], body: FileRange, refusal: Refusal
    ) -> str:
        """If the client library fares no better, presigning was not what the server minded."""
        etag = await self._send_by_client(operation, params, body)
        self._is_presigning = False
        log.warning(
            "the S3 server refuses presigned uploads, the client library sends parts from now on",
            refused_with=str(refusal),
        )
        return etag

    async def _send_presigned(self, operation: str, params: dict[str, Any], body: FileRange) -> str:
        url = await self._client.generate_presigned_url(
            xform_name(operation),
            Params={"Bucket": self._bucket, **params},
            ExpiresIn=_URL_LIFETIME_S,
            HttpMethod="PUT",
        )
        try:
            reply = await self._put(URL(url, encoded=True), _signed_headers(params), body)
        except FOREIGN_ERRORS as error:
            raise translate(operation, error) from None  # its text holds the signed URL
        if reply.status >= 300:
            raise _RefusedError(
                refusal_from_reply(operation, reply.status, reply.headers, reply.text)
            )
        if not reply.is_whole:
            raise ServerUnreachableError(f"S3 answered {operation} before it had every byte")
        return etag_in(reply.headers)

    async def _put(self, url: URL, headers: dict[str, str], body: FileRange) -> Reply:
        if self._tls is not None and url.scheme == "https":
            return await self._tls.put(url, headers, body)
        payload = RangePayload(body)
        try:
            async with self._http.put(
                url,
                data=payload if body.size else b"",
                headers=headers,
                proxy=self._proxy,
                allow_redirects=False,
            ) as reply:
                text = await _bounded_body(reply)
        except FOREIGN_ERRORS:
            if payload.failure is not None:
                raise payload.failure from None
            if payload.is_short:
                raise ProofFailedError(BECAME_SHORTER) from None
            raise
        return Reply(reply.status, reply.headers, text, payload.is_sent)

    async def _send_by_client(
        self, operation: str, params: dict[str, Any], body: FileRange | bytes
    ) -> str:
        content: RangeFile | bytes
        if isinstance(body, bytes):
            content = body
        else:
            content = RangeFile(body, sha256=await asyncio.to_thread(_sha256_of, body))
        method = getattr(self._client, xform_name(operation))
        try:
            reply = await method(Bucket=self._bucket, Body=content, **params)
        except FOREIGN_ERRORS as error:
            if isinstance(content, RangeFile) and content.failure is not None:
                raise content.failure from None
            raise translate(operation, error) from None
        return etag_in(reply)


def _sha256_of(body: FileRange) -> str:
    digest = new_sha256()
    try:
        hash_range(body.fd, body.offset, body.offset + body.size, also=(digest,))
    except ShortFileError:
        raise ProofFailedError(BECAME_SHORTER) from None
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


async def _bounded_body(reply: aiohttp.ClientResponse) -> bytes:
    try:
        return await reply.content.readexactly(MAX_ERROR_BODY)
    except asyncio.IncompleteReadError as error:
        return error.partial
