"""One request to S3 as all of them are made: translated errors, bounded retries, server_up; and one
object as it was found."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from botocore import xform_name

from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    PermanentError,
    ProofFailedError,
    TransientError,
)
from cefmp4.reachability import S3
from cefmp4.retry import bounded
from cefmp4.storage.s3.errors import FOREIGN_ERRORS, translate

T = TypeVar("T")

_READ_BYTES = 256 * 1024

_STORING = {"CreateMultipartUpload", "UploadPart", "UploadPartCopy", "PutObject"}
# Without these nothing is stored. What else may be refused, we can do without for a while.
_WRITES = {"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "PutObject"}


def etag_in(reply: Mapping[str, Any]) -> str:
    """Empty where the server tells none."""
    return str(reply.get("ETag") or "").strip('"')


async def body_of(reply: Mapping[str, Any], key: str, *, most: int) -> bytes:
    """Counted as it comes: a server may send more than it says, and without end."""
    size, came, pieces = reply.get("ContentLength", 0), 0, []
    body = reply["Body"]
    async with body:
        while size <= most and (some := await body.read(_READ_BYTES)):
            pieces.append(some)
            came += len(some)
            size = max(size, came)
    if size > most:
        raise PermanentError(f"{key}: {size} bytes are too many for one read")
    return b"".join(pieces)


class S3Calls:
    """`client` is aioboto3's. Every operation called through here is safe to repeat."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client = client
        self.bucket = bucket

    async def find(self, key: str, *, bucket: str = "") -> "S3Object":
        """In whatever bucket of this server. Raises KeyMissingError."""
        place = bucket or self.bucket
        reply = await self.call("HeadObject", Key=key, Bucket=place)
        return S3Object(self, place, key, size=reply["ContentLength"], etag=etag_in(reply))

    async def call(self, operation: str, **params: Any) -> dict[str, Any]:
        return await self.repeat(operation, lambda: self.once(operation, **params))

    async def once(self, operation: str, **params: Any) -> dict[str, Any]:
        """One attempt, for what is given to `repeat`: errors are still those of the client."""
        method = getattr(self.client, xform_name(operation))
        reply: dict[str, Any] = await method(**{"Bucket": self.bucket, **params})
        return reply

    async def repeat(self, operation: str, request: Callable[[], Awaitable[T]]) -> T:
        async def attempt() -> T:
            try:
                return await request()
            except FOREIGN_ERRORS as error:
                raise translate(operation, error) from None  # it may quote what we sent

        try:
            result = await bounded(attempt, server="s3")
        except TransientError as error:
            S3.failed(error)
            raise
        except CefError as error:
            S3.answered()  # a refusal is an answer
            if isinstance(error, AccessDeniedError) and operation in _WRITES:
                S3.refused(operation, error)
            raise
        S3.allowed(operation)
        if operation in _STORING:
            S3.has_room()
        return result


class S3Object:
    """Ranges of it are read, and of no other that takes its place."""

    def __init__(self, calls: S3Calls, bucket: str, key: str, *, size: int, etag: str) -> None:
        self._calls = calls
        self._bucket = bucket
        self._key = key
        self.size = size
        self.etag = etag

    def __repr__(self) -> str:
        return f"<S3Object {self._bucket}/{self._key} size={self.size}>"

    async def read(self, start: int, end: int) -> bytes:
        """Every request is signed anew, so that it may be read for as long as it takes."""
        wanted: dict[str, Any] = {"Bucket": self._bucket, "Key": self._key}
        wanted["Range"] = f"bytes={start}-{end - 1}"
        if self.etag:
            wanted["IfMatch"] = f'"{self.etag}"'
        try:
            data = await self._calls.repeat("GetObject", lambda: self._read(wanted, end - start))
        except ProofFailedError as error:
            raise PermanentError(f"the object {self._key} was replaced") from error
        if len(data) != end - start:
            raise PermanentError(f"the object {self._key} has another length")
        return data

    async def _read(self, wanted: dict[str, Any], most: int) -> bytes:
        reply = await self._calls.once("GetObject", **wanted)
        if reply["ResponseMetadata"]["HTTPStatusCode"] != 206:
            reply["Body"].close()
            raise PermanentError("the S3 server reads no ranges of objects")
        return await body_of(reply, self._key, most=most)
