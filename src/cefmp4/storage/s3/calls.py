"""One request to S3 as all of them are made: translated errors, bounded retries, server_up."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from botocore import xform_name

from cefmp4 import metrics
from cefmp4.errors import AccessDeniedError, CefError, TransientError
from cefmp4.reachability import S3
from cefmp4.retry import bounded
from cefmp4.storage.s3.errors import FOREIGN_ERRORS, translate

T = TypeVar("T")

_STORING = {"CreateMultipartUpload", "UploadPart", "UploadPartCopy", "PutObject"}
# Without these nothing is stored. What else may be refused, we can do without for a while.
_WRITES = {"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "PutObject"}


def etag_in(reply: Mapping[str, Any]) -> str:
    """Empty where the server tells none."""
    return str(reply.get("ETag") or "").strip('"')


class S3Calls:
    """`client` is aioboto3's. Every operation called through here is safe to repeat."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    @property
    def bucket(self) -> str:
        return self._bucket

    async def facts(self, key: str, *, bucket: str = "") -> tuple[int, str]:
        """Size and ETag. Raises KeyMissingError."""
        reply = await self.call("HeadObject", Key=key, Bucket=bucket or self._bucket)
        return reply["ContentLength"], etag_in(reply)

    async def call(self, operation: str, **params: Any) -> dict[str, Any]:
        return await self.repeat(operation, lambda: self.once(operation, **params))

    async def once(self, operation: str, **params: Any) -> dict[str, Any]:
        """One attempt, for callers that repeat more than the request itself."""
        method = getattr(self._client, xform_name(operation))
        try:
            reply: dict[str, Any] = await method(**{"Bucket": self._bucket, **params})
        except FOREIGN_ERRORS as error:
            raise translate(operation, error) from None  # it may quote what we sent
        return reply

    async def repeat(self, operation: str, request: Callable[[], Awaitable[T]]) -> T:
        async def attempt() -> T:
            try:
                return await request()
            except FOREIGN_ERRORS as error:
                raise translate(operation, error) from None

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
            metrics.note_room("s3")
        return result
