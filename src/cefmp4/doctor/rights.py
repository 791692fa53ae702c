"""Tries each S3 call that an upload needs on a throw-away key, one right after the other, and names
the right that is missing. Whatever it makes, it removes."""

import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cefmp4.errors import AccessDeniedError, CefError, PermanentError
from cefmp4.model.diagnosis import Diagnosis, fail, ok, warn
from cefmp4.storage.s3.calls import S3Calls
from cefmp4.storage.s3.probe import PROBE_PREFIX

_BODY = b"cefmp4 doctor tries what it may do here\n"
_PATCHED = b"cefmp4 doctor patches what it has sent!\n"
_COPIED = slice(0, 10)


@dataclass(frozen=True, slots=True)
class _Step:
    """`needs`: the steps without which this one cannot be tried; `cost`: what is worse without it,
    where uploads go on all the same."""

    name: str
    right: str
    attempt: Callable[[], Coroutine[Any, Any, Any]]
    needs: tuple[str, ...] = ()
    cost: str = ""


class Rights:
    def __init__(self, calls: S3Calls) -> None:
        self._calls = calls
        self._key = PROBE_PREFIX + secrets.token_hex(8)
        self._target = self._key + "-parts"
        self._open: list[dict[str, str]] = []
        self._etag = ""
        self._expected = b""
        self._made: set[str] = set()

    async def examine(self) -> list[Diagnosis]:
        found: list[Diagnosis] = []
        missing: set[str] = set()
        try:
            for step in self._plan():
                if missing.isdisjoint(step.needs):
                    problem = await self._try(step)
                    found += [problem] if problem else []
                    missing |= {step.name} if problem else set()
                else:
                    missing.add(step.name)
        finally:
            await self._remove()
        return found or [ok("S3 rights", "all calls that uploads need are allowed")]

    def _plan(self) -> list[_Step]:
        create, part, parts = "CreateMultipartUpload", "UploadPart", "ListParts"
        replaced, complete = "replaced part", "CompleteMultipartUpload"
        return [
            _Step("PutObject", "s3:PutObject", self._put),
            _Step("HeadObject", "s3:GetObject", self._head, ("PutObject",)),
            _Step("GetObject", "s3:GetObject", self._read, ("PutObject",)),
            _Step("ListObjectsV2", "s3:ListBucket", self._list),
            _Step("ListMultipartUploads", "s3:ListBucketMultipartUploads", self._list_uploads),
            _Step(create, "s3:PutObject", self._begin),
            _Step(part, "s3:PutObject", self._upload, (create,)),
            _Step(parts, "s3:ListMultipartUploadParts", self._list_parts, (part,)),
            _Step(replaced, "s3:PutObject", self._replace, (parts,)),
            _Step(
                "UploadPartCopy",
                "s3:GetObject and s3:PutObject",
                self._copy_part,
                ("PutObject", part),
                "recordings that go on after their upload are sent again in full",
            ),
            _Step(complete, "s3:PutObject", self._complete, (part,)),
            _Step("completed object", "s3:GetObject", self._read_whole, (complete, "GetObject")),
            _Step("AbortMultipartUpload", "s3:AbortMultipartUpload", self._abort, (create,)),
            _Step("DeleteObject", "s3:DeleteObject", self._delete, ("PutObject",)),
        ]

    async def _try(self, step: _Step) -> Diagnosis | None:
        """None where it works."""
        try:
            await step.attempt()
        except AccessDeniedError as error:
            is_of_bucket = step.right.startswith("s3:ListBucket")
            where = "the bucket" if is_of_bucket else f"{PROBE_PREFIX}* and on your keys"
            advice = f"allow {step.right} on {where}"
            return _judge(step, error.args[0], advice)
        except CefError as error:
            return _judge(step, error.args[0], error.hint or "use a server that can do it")
        return None

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

    async def _list(self) -> None:
        await self._calls.call("ListObjectsV2", Prefix=self._key)

    async def _list_uploads(self) -> None:
        await self._calls.call("ListMultipartUploads", Prefix=self._key)

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


def _judge(step: _Step, detail: str, advice: str) -> Diagnosis:
    subject = f"S3 {step.name}"
    if step.cost:
        return warn(subject, detail, f"{advice}, or live with it: {step.cost}")
    return fail(subject, detail, advice)
