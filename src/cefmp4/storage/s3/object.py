"""One object as it was found: ranges of it are read, and of no other that takes its place."""

from typing import Any

from cefmp4.errors import PermanentError, ProofFailedError
from cefmp4.storage.s3.calls import S3Calls, body_of


class S3Object:
    def __init__(self, calls: S3Calls, *, bucket: str, key: str, size: int, etag: str) -> None:
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
