"""One request to S3 as all of them are made: translated errors, bounded retries, server_up."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from botocore import xform_name

from cefmp4.errors import AccessDeniedError, CefError, PermanentError, TransientError
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
    size, data = reply.get("ContentLength", 0), bytearray()
    body = reply["Body"]
    async with body:
        while size <= most and (some := await body.read(_READ_BYTES)):
            data += some
            size = max(size, len(data))
    if size > most:
        raise PermanentError(f"{key}: {size} bytes are too many for one read")
    return bytes(data)


class S3Calls:
    """`client` is aioboto3's. Every operation called through here is safe to repeat."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    async def facts(self, key: str, *, bucket: str = "") -> tuple[int, str]:
        """Size and ETag. Raises KeyMissingError."""
        reply = await self.call("HeadObject", Key=key, Bucket=bucket or self.bucket)
        return reply["ContentLength"], etag_in(reply)

    async def call(self, operation: str, **params: Any) -> dict[str, Any]:
        return await self.repeat(operation, lambda: self.once(operation, **params))

    async def once(self, operation: str, **params: Any) -> dict[str, Any]:
        """One attempt, for what is given to `repeat`: errors are still those of the client."""
        method = getattr(self._client, xform_name(operation))
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
