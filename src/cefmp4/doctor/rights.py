"""Tries each S3 call that an upload needs on a throw-away key, one right after the other, and names
the right that is missing. Whatever it makes, it removes."""

import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from cefmp4.errors import AccessDeniedError, CefError, PermanentError
from cefmp4.model.diagnosis import Diagnosis, fail, ok, warn
from cefmp4.storage.s3.calls import S3Calls
from cefmp4.storage.s3.probe import PROBE_PREFIX

_BODY = b"cefmp4 doctor tries what it may do here\n"
_PATCHED = b"cefmp4 doctor patches what it has sent!\n"
_COPIED = slice(0, 10)
_LISTINGS = {
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}


Attempt = Callable[[], Coroutine[Any, Any, object]]


class Rights:
    def __init__(self, calls: S3Calls) -> None:
        self._calls = calls
        self._key = PROBE_PREFIX + secrets.token_hex(8)
        self._target = self._key + "-parts"
        self._open: list[dict[str, str]] = []
        self._etag = ""
        self._expected = b""
        self._made: set[str] = set()
        self._found: list[Diagnosis] = []

    async def examine(self) -> list[Diagnosis]:
        try:
            await self._try_all()
        finally:
            await self._remove()
        return self._found or [ok("S3 rights", "all calls that uploads need are allowed")]

    async def _try_all(self) -> None:
        can_put = await self._can("PutObject", "s3:PutObject", self._put)
        can_read = False
        if can_put:
            await self._can("HeadObject", "s3:GetObject", self._head)
            can_read = await self._can("GetObject", "s3:GetObject", self._read)
        for name, right in _LISTINGS.items():
            await self._can(name, right, partial(self._calls.call, name, Prefix=self._key))
        if await self._can("CreateMultipartUpload", "s3:PutObject", self._begin):
            if await self._can("UploadPart", "s3:PutObject", self._upload):
                await self._try_part(can_put=can_put, can_read=can_read)
            await self._can("AbortMultipartUpload", "s3:AbortMultipartUpload", self._abort)
        if can_put:
            await self._can("DeleteObject", "s3:DeleteObject", self._delete)

    async def _try_part(self, *, can_put: bool, can_read: bool) -> None:
        if await self._can("ListParts", "s3:ListMultipartUploadParts", self._list_parts):
            await self._can("replaced part", "s3:PutObject", self._replace)
        if can_put:
            right = "s3:GetObject and s3:PutObject"
            cost = "recordings that go on after their upload are sent again in full"
            await self._can("UploadPartCopy", right, self._copy_part, cost=cost)
        is_complete = await self._can("CompleteMultipartUpload", "s3:PutObject", self._complete)
        if is_complete and can_read:
            await self._can("completed object", "s3:GetObject", self._read_whole)

    async def _can(self, name: str, right: str, attempt: Attempt, *, cost: str = "") -> bool:
        """`cost`: what is worse without it, where uploads go on all the same."""
        try:
            await attempt()
        except CefError as error:
            advice = error.hint or "use a server that can do it"
            if isinstance(error, AccessDeniedError):
                is_of_bucket = right.startswith("s3:ListBucket")
                where = "the bucket" if is_of_bucket else f"{PROBE_PREFIX}* and on your keys"
                advice = f"allow {right} on {where}"
            judge = warn if cost else fail
            advice += f", or live with it: {cost}" if cost else ""
            self._found.append(judge(f"S3 {name}", error.args[0], advice))
            return False
        return True

    async def _put(self) -> None:
        await self._calls.call("PutObject", Key=self._key, Body=_BODY)
        self._made.add(self._key)

    async def _head(self) -> None:
        reply = await self._calls.call("HeadObject", Key=self._key)
        if reply.get("ContentLength") != len(_BODY):
            raise PermanentError("HeadObject tells another size than was stored")

    async def _read(self) -> None:
        reply = await self._calls.call("GetObject", Key=self._key, Range="bytes=7-12")
        if await reply["Body"].read() != _BODY[7:13]:
            raise PermanentError("GetObject gives other bytes than the range asked for")

    async def _begin(self) -> None:
        reply = await self._calls.call("CreateMultipartUpload", Key=self._target)
        self._open.append({"Key": self._target, "UploadId": reply["UploadId"]})

    async def _upload(self) -> None:
        await self._send(_BODY)

    async def _list_parts(self) -> None:
        if await self._listed() != [self._etag]:
            raise PermanentError("ListParts does not list the part that was stored")

    async def _replace(self) -> None:
        """Recorders patch what was sent already: each such part is sent again."""
        before = self._etag
        await self._send(_PATCHED)
        listed = await self._listed()
        if self._etag == before or listed != [self._etag]:
            raise PermanentError("a part that was sent again is not replaced")

    async def _copy_part(self) -> None:
        reply = await self._calls.call(
            "UploadPartCopy",
            **self._open[0],
            PartNumber=1,
            CopySource={"Bucket": self._calls.bucket, "Key": self._key},
            CopySourceRange=f"bytes={_COPIED.start}-{_COPIED.stop - 1}",
        )
        self._etag, self._expected = reply["CopyPartResult"]["ETag"], _BODY[_COPIED]

    async def _complete(self) -> None:
        parts = {"Parts": [{"PartNumber": 1, "ETag": self._etag}]}
        await self._calls.call("CompleteMultipartUpload", **self._open[0], MultipartUpload=parts)
        self._open.pop(0)
        self._made.add(self._target)

    async def _read_whole(self) -> None:
        reply = await self._calls.call("GetObject", Key=self._target)
        if await reply["Body"].read() != self._expected:
            raise PermanentError("the completed object has other bytes than its parts")

    async def _abort(self) -> None:
        await self._begin()
        await self._calls.call("AbortMultipartUpload", **self._open[-1])
        self._open.pop()

    async def _delete(self) -> None:
        for key in sorted(self._made):
            await self._calls.call("DeleteObject", Key=key)
        self._made.clear()

    async def _send(self, body: bytes) -> None:
        part = await self._calls.call("UploadPart", **self._open[0], PartNumber=1, Body=body)
        self._etag, self._expected = part["ETag"], body

    async def _listed(self) -> list[str]:
        reply = await self._calls.call("ListParts", **self._open[0])
        return [part["ETag"] for part in reply.get("Parts", [])]

    async def _remove(self) -> None:
        """What cannot be removed is a diagnosis already."""
        for key in self._made:
            with suppress(CefError):
                await self._calls.call("DeleteObject", Key=key)
        for upload in self._open:
            with suppress(CefError):
                await self._calls.call("AbortMultipartUpload", **upload)
