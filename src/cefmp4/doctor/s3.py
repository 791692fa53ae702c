"""Asks an S3 server what an upload needs of it, and reads the rules that would work against it."""

import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

from cefmp4.doctor.rights import Rights
from cefmp4.errors import AccessDeniedError, CefError, PermanentError
from cefmp4.model.diagnosis import Diagnosis, Level, fail, fail_of, ok, warn
from cefmp4.storage.s3.calls import S3Calls
from cefmp4.storage.s3.connect import S3Config, connect
from cefmp4.storage.s3.probe import PROBE_PREFIX, probe_store

_SKEW_WARN_S = 60.0
_SKEW_FAIL_S = 840.0  # S3 refuses requests from 900 s on
_LONG_UPLOAD_DAYS = 7

Reply = dict[str, Any]


async def examine_s3(config: S3Config, *, key_prefix: str) -> list[Diagnosis]:
    """`key_prefix`: what the keys of all our objects begin with, as far as that is fixed."""
    async with connect(config) as (calls, _transfer):
        try:
            reply = await _first_answer(calls)
        except CefError as error:
            found = fail_of("S3", error, "check the S3_* settings")
            # Where none are given, nothing is wrong yet: no more than without REDIS_URL.
            return [found if config.access_key else replace(found, is_setting=False)]
        rights = await Rights(calls).examine()
        return [
            ok("S3", f"bucket {config.bucket} at {config.endpoint_url or 'AWS'} answers"),
            judge_clock(reply, time.time()),
            *rights,
            # It writes, too, and would say less clearly that it may not.
            *([] if any(entry.level is Level.FAIL for entry in rights) else [await _proof(calls)]),
            *await _lifecycle(calls, key_prefix),
        ]


async def _first_answer(calls: S3Calls) -> Reply:
    """A single right that is refused is none of its matters: each is tried for itself."""
    try:
        return await calls.call("ListMultipartUploads", Prefix=PROBE_PREFIX, MaxUploads=1)
    except AccessDeniedError as error:
        if error.is_stranger:
            raise
        return {}


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
