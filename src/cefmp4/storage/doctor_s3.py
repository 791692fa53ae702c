"""Tries every S3 call that an upload needs on a throw-away key, and reads the rules that would
work against it. Whatever it makes, it removes."""

import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from cefmp4.errors import AccessDeniedError, CefError, PermanentError
from cefmp4.model.diagnosis import Diagnosis, fail, fail_of, ok, warn
from cefmp4.storage.s3_calls import S3Calls
from cefmp4.storage.s3_connect import S3Config, connect
from cefmp4.storage.s3_probe import PROBE_PREFIX, probe_store

_BODY = b"cefmp4 doctor tries what it may do here\n"
_SKEW_WARN_S = 60.0
_SKEW_FAIL_S = 840.0  # S3 refuses requests from 900 s on
_LONG_UPLOAD_DAYS = 7

Reply = dict[str, Any]


async def examine_s3(config: S3Config, *, key_prefix: str) -> list[Diagnosis]:
    """`key_prefix`: what the keys of all our objects begin with, as far as that is fixed."""
    async with connect(config) as (client, _transfer):
        calls = S3Calls(client, config.bucket)
        try:
            reply = await calls.call("ListMultipartUploads", Prefix=PROBE_PREFIX, MaxUploads=1)
        except CefError as error:
            return [fail_of("S3", error, "check the S3_* settings")]
        return [
            ok("S3", f"bucket {config.bucket} at {config.endpoint_url or 'AWS'} answers"),
            judge_clock(reply, time.time()),
            *await _Rights(calls).examine(),
            await _proof(calls),
            *await _lifecycle(calls, key_prefix),
        ]


class _Rights:
    """Two uploads and one object under a key of their own."""

    def __init__(self, calls: S3Calls) -> None:
        self._calls = calls
        self._key = PROBE_PREFIX + secrets.token_hex(8)
        self._copy = self._key + "-parts"
        self._open: set[tuple[str, str]] = set()
        self._etag = ""

    async def examine(self) -> list[Diagnosis]:
        found: list[Diagnosis] = []
        try:
            for name, right, attempt in self._plan():
                found.append(await self._try(name, right, attempt))
        finally:
            await self._remove()
        refused = [entry for entry in found if entry.advice]
        return refused or [ok("S3 rights", "all calls that uploads need are allowed")]

    def _plan(self) -> list[tuple[str, str, Callable[[], Coroutine[Any, Any, Any]]]]:
        return [
            ("PutObject", "s3:PutObject", self._put),
            ("HeadObject", "s3:GetObject", self._head),
            ("GetObject with a range", "s3:GetObject", self._read),
            ("ListObjectsV2", "s3:ListBucket", self._list),
            ("a multipart upload", "s3:PutObject, s3:ListMultipartUploadParts", self._upload),
            ("UploadPartCopy", "s3:GetObject, s3:PutObject", self._copy_part),
            ("CompleteMultipartUpload", "s3:PutObject", self._complete),
            ("AbortMultipartUpload", "s3:AbortMultipartUpload", self._abort),
            ("DeleteObject", "s3:DeleteObject", self._delete),
        ]

    async def _try(
        self, name: str, right: str, attempt: Callable[[], Coroutine[Any, Any, Any]]
    ) -> Diagnosis:
        try:
            await attempt()
        except CefError as error:
            if name == "UploadPartCopy":
                cost = "recordings that go on after their upload are sent again in full"
                return warn(f"S3 {name}", error.args[0], f"allow {right}, or live with it: {cost}")
            return fail(
                f"S3 {name}", error.args[0], f"allow {right} on {PROBE_PREFIX}* and your keys"
            )
        return ok(f"S3 {name}", "works")

    async def _put(self) -> None:
        await self._calls.call("PutObject", Key=self._key, Body=_BODY)

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

    async def _upload(self) -> None:
        upload = await self._begin()
        part = await self._calls.call("UploadPart", **upload, PartNumber=1, Body=_BODY)
        self._etag = part["ETag"]
        listed = await self._calls.call("ListParts", **upload)
        if [entry["PartNumber"] for entry in listed.get("Parts", [])] != [1]:
            raise PermanentError("ListParts does not list the part that was stored")

    async def _copy_part(self) -> None:
        upload = self._first()
        source = {"Bucket": self._calls.bucket, "Key": self._key}
        part = await self._calls.call(
            "UploadPartCopy", **upload, PartNumber=1, CopySource=source, CopySourceRange="bytes=0-9"
        )
        self._etag = part["CopyPartResult"]["ETag"]

    async def _complete(self) -> None:
        upload = self._first()
        parts = {"Parts": [{"PartNumber": 1, "ETag": self._etag}]}
        await self._calls.call("CompleteMultipartUpload", **upload, MultipartUpload=parts)
        self._open.clear()

    async def _abort(self) -> None:
        upload = await self._begin()
        await self._calls.call("AbortMultipartUpload", **upload)
        self._open.discard((upload["Key"], upload["UploadId"]))

    async def _delete(self) -> None:
        for key in (self._key, self._copy):
            await self._calls.call("DeleteObject", Key=key)

    async def _begin(self) -> dict[str, str]:
        reply = await self._calls.call("CreateMultipartUpload", Key=self._copy)
        self._open.add((self._copy, reply["UploadId"]))
        return {"Key": self._copy, "UploadId": reply["UploadId"]}

    def _first(self) -> dict[str, str]:
        if not self._open:
            raise PermanentError("there is no multipart upload to try it on")
        key, upload_id = next(iter(self._open))
        return {"Key": key, "UploadId": upload_id}

    async def _remove(self) -> None:
        for key, upload_id in self._open:
            with suppress(CefError):  # already a diagnosis of its own
                await self._calls.call("AbortMultipartUpload", Key=key, UploadId=upload_id)


async def _proof(calls: S3Calls) -> Diagnosis:
    try:
        proof = await probe_store(calls)
    except CefError as error:
        return fail_of("S3 proof", error, "use a server that checks what it stores")
    whole = ", and the whole object by CRC-64/NVME" if proof.full_object_crc else ""
    return ok("S3 proof", f"each part is proven by {proof.part}{whole}")


def judge_clock(reply: Reply, now: float) -> Diagnosis:
    headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        skew = now - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return ok("clock", "the S3 server does not tell its time")
    ahead = "ahead of" if skew > 0 else "behind"
    detail = f"{abs(skew):.0f} s {ahead} the S3 server"
    if abs(skew) >= _SKEW_FAIL_S:
        return fail("clock", detail, "set the clock: S3 refuses requests at 15 minutes")
    if abs(skew) >= _SKEW_WARN_S:
        return warn("clock", detail, "keep the clock with NTP: S3 refuses requests at 15 minutes")
    return ok("clock", detail)


async def _lifecycle(calls: S3Calls, key_prefix: str) -> list[Diagnosis]:
    try:
        reply = await calls.call("GetBucketLifecycleConfiguration")
    except AccessDeniedError as error:
        advice = "allow s3:GetLifecycleConfiguration, or look yourself for rules that abort uploads"
        return [warn("S3 lifecycle", error.args[0], advice)]
    except PermanentError:
        return [ok("S3 lifecycle", "the server tells of no rules")]
    except CefError as error:
        return [warn("S3 lifecycle", error.args[0], "look yourself for rules that abort uploads")]
    return judge_lifecycle(reply.get("Rules", []), key_prefix)


def judge_lifecycle(rules: list[dict[str, Any]], key_prefix: str) -> list[Diagnosis]:
    found = []
    for rule in rules:
        if rule.get("Status") != "Enabled" or not _concerns(rule, key_prefix):
            continue
        found += _judge_rule(rule, f"rule {rule.get('ID') or 'without a name'}")
    return found or [ok("S3 lifecycle", "no rule touches uploads in progress or our objects")]


def _judge_rule(rule: dict[str, Any], name: str) -> list[Diagnosis]:
    found = []
    days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
    if isinstance(days, int) and days < _LONG_UPLOAD_DAYS:
        detail = f"{name} aborts uploads {days} days after their start, growing or not"
        found.append(warn("S3 lifecycle", detail, "no recording may last longer: raise the days"))
    expiration = rule.get("Expiration", {})
    if "Days" in expiration or "Date" in expiration:
        when = f"after {expiration['Days']} days" if "Days" in expiration else "on a date"
        detail = f"{name} deletes objects {when}"
        found.append(warn("S3 lifecycle", detail, "make sure that recordings may go by then"))
    return found


def _concerns(rule: dict[str, Any], key_prefix: str) -> bool:
    """Whether one of the two prefixes begins with the other. A rule by tag or size counts too: it
    may fit some of our objects."""
    chosen = rule.get("Filter", {})
    prefix = str(
        rule.get("Prefix") or chosen.get("Prefix") or chosen.get("And", {}).get("Prefix") or ""
    )
    return prefix.startswith(key_prefix) or key_prefix.startswith(prefix)
