"""Turns what botocore, aiohttp and S3 replies say into our errors, once. Signed URLs, keys and
secrets never get into a message."""

from collections.abc import Mapping
from dataclasses import dataclass
from socket import gaierror
from typing import Any
from xml.etree import ElementTree

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from cefmp4.errors import (
    AccessDeniedError,
    BucketMissingError,
    CefError,
    InvariantError,
    KeyTakenError,
    PermanentError,
    ProofFailedError,
    ServerUnreachableError,
    SourceError,
    StoreFullError,
    ThrottledError,
    TransientError,
    UploadGoneError,
)
from cefmp4.log import redact

_ACCESS_HINTS = {
    "InvalidAccessKeyId": "S3_ACCESS_KEY_ID is not known to this server",
    "SignatureDoesNotMatch": "S3_SECRET_ACCESS_KEY does not belong to S3_ACCESS_KEY_ID",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "AccountProblem": "the account is suspended",
}
_ACCESS_HINT = "the credentials must be allowed to read, write and list in the whole bucket"
# The answer to a HEAD has no body, so that no code says it.
_NO_REASON_HINT = "the session token may have expired; else check S3_REGION_NAME"
_THROTTLED = {
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
    "ServiceUnavailable", "RequestThrottled", "BandwidthLimitExceeded",
}  # fmt: skip
_FULL = {"InsufficientStorage", "XMinioStorageFull"}  # ours, and MinIO's; no other server has one
_FULL_HINT = "free space on it; recordings wait on their own disk"
_TRANSIENT = {"InternalError", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"}
_CHECKSUM = {
    "BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch",
    "ChecksumMismatch", "InvalidChecksum", "IncompleteBody",
}  # fmt: skip
_WRONG_PARTS = {"InvalidPart", "InvalidPartOrder", "EntityTooSmall"}
_ELSEWHERE = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}
_UPLOAD_OPERATIONS = {
    "UploadPart", "UploadPartCopy", "ListParts", "CompleteMultipartUpload", "AbortMultipartUpload",
}  # fmt: skip
_NO_ANSWER = (
    HTTPClientError, BotoConnectionError, IncompleteReadError, aiohttp.ClientError, OSError,
)  # fmt: skip
FOREIGN_ERRORS = (ClientError, BotoCoreError, ResponseParserError, aiohttp.ClientError, OSError)


class KeyMissingError(PermanentError):
    """There is no such object."""


class RangeMissingError(PermanentError):
    """The object ends before the range begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A reply that is not a success, whatever library it came through."""

    operation: str
    status: int
    code: str = ""
    message: str = ""
    retry_after_s: float = 0.0

    def __str__(self) -> str:
        said = ": ".join(filter(None, (self.code, redact(self.message))))
        return f"S3 {self.operation} failed, status {self.status}" + (f", {said}" if said else "")

    @property
    def is_checksum(self) -> bool:
        about = self.message.lower()
        return self.code in _CHECKSUM or (
            self.code in {"InvalidRequest", "InvalidArgument"}
            and ("checksum" in about or "crc64" in about or "digest" in about)
        )


def refusal_from_reply(
    operation: str, status: int, headers: Mapping[str, str], body: bytes
) -> Refusal:
    code, message = "", ""
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, LookupError):
        pass  # no XML, or in an encoding that nobody knows
    else:
        code = root.findtext("{*}Code") or root.findtext("Code") or ""
        message = root.findtext("{*}Message") or root.findtext("Message") or ""
    return Refusal(
        operation=operation,
        status=status,
        code=code,
        message=message,
        retry_after_s=_seconds(headers.get("Retry-After", "")),
    )


def _refusal_from_client(operation: str, error: ClientError) -> Refusal:
    response: Any = error.response
    reply = response.get("ResponseMetadata", {})
    return Refusal(
        operation=operation,
        status=reply.get("HTTPStatusCode", 0),
        # A reply without a body has None there.
        code=str(response.get("Error", {}).get("Code") or ""),
        message=str(response.get("Error", {}).get("Message") or ""),
        retry_after_s=_seconds(reply.get("HTTPHeaders", {}).get("retry-after", "")),
    )


def _seconds(text: str) -> float:
    # A date is allowed there too; no S3 server that was seen sends one, our own back-off serves.
    return float(text) if text.isdecimal() else 0.0


def unreadable(error: OSError) -> SourceError:
    return SourceError(f"the file cannot be read: {error.strerror}")


def became_shorter() -> ProofFailedError:
    return ProofFailedError("the file became shorter while it was sent")


def translate(operation: str, error: Exception) -> CefError:
    """The error of our tree that stands for `error`."""
    if isinstance(error, CefError):
        return error
    if isinstance(error, ClientError):
        return to_error(_refusal_from_client(operation, error))
    if isinstance(error, NoCredentialsError):
        return AccessDeniedError(
            "no S3 credentials found",
            hint="set S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY",
            is_stranger=True,
        )
    if isinstance(error, _NO_ANSWER):
        return ServerUnreachableError(f"S3 did not answer {operation}: {_reason(error)}")
    if isinstance(error, ResponseParserError):
        return TransientError(f"S3 {operation} got a reply that is not S3's")
    if isinstance(error, BotoCoreError):
        return PermanentError(f"S3 {operation} cannot be sent: {redact(str(error))}")
    return InvariantError(f"S3 {operation} broke: {type(error).__name__}")


def _reason(error: BaseException) -> str:
    """The type and the system's words; the text of these errors may hold a signed URL."""
    cause: Any = error
    if isinstance(error, BotoCoreError):
        cause = getattr(error, "kwargs", {}).get("error") or error
    host = getattr(cause, "host", None)
    cause = getattr(cause, "os_error", cause)  # what aiohttp's connector errors carry
    words = getattr(cause, "strerror", None) or ""
    subject = host if host and isinstance(cause, gaierror) else type(cause).__name__
    return ": ".join(filter(None, (subject, redact(str(words)))))


def to_error(refusal: Refusal) -> CefError:
    """By code first, because a reply that began as a success carries its error in the body."""
    if refusal.code in _FULL or refusal.status == 507:
        return StoreFullError(f"the disk of the S3 server is full: {refusal}", hint=_FULL_HINT)
    by_code = _by_code(refusal)
    return by_code if by_code is not None else _by_status(refusal)


def _by_code(refusal: Refusal) -> CefError | None:
    code, text = refusal.code, str(refusal)
    if code in _ACCESS_HINTS:
        return AccessDeniedError(text, hint=_ACCESS_HINTS[code], is_stranger=True)
    if code in _THROTTLED:
        return ThrottledError(text, retry_after_s=refusal.retry_after_s)
    if code == "NoSuchBucket":
        return BucketMissingError(text, hint="create the bucket that S3_BUCKET_NAME names")
    if code == "NoSuchUpload":
        return UploadGoneError(text)
    if code == "NoSuchKey":
        return _key_missing(refusal)
    if code == "PreconditionFailed":
        return _precondition_failed(refusal)
    if code in _WRONG_PARTS or refusal.is_checksum:
        return ProofFailedError(text)
    if code in _TRANSIENT:
        return TransientError(text)
    if code in _ELSEWHERE or refusal.status in {301, 307}:
        return PermanentError(text, hint="check S3_REGION_NAME and S3_ENDPOINT_URL")
    return None


def _key_missing(refusal: Refusal) -> CefError:
    if refusal.operation == "UploadPartCopy":
        return ProofFailedError(str(refusal), hint="the object to copy from is gone")
    if refusal.operation in _UPLOAD_OPERATIONS:  # Ceph's way to say NoSuchUpload
        return UploadGoneError(str(refusal))
    return KeyMissingError(str(refusal))


def _precondition_failed(refusal: Refusal) -> CefError:
    """Of a copy: the source is another object now. Of what makes an object: there is one."""
    if refusal.operation in {"PutObject", "CompleteMultipartUpload"}:
        return KeyTakenError(str(refusal))
    return ProofFailedError(str(refusal))


def _by_status(refusal: Refusal) -> CefError:
    status, text = refusal.status, str(refusal)
    if status in {429, 503}:
        return ThrottledError(text, retry_after_s=refusal.retry_after_s)
    if status in {401, 403}:
        return AccessDeniedError(text, hint=_ACCESS_HINT)
    if status == 400 and refusal.operation.startswith("Head"):
        return AccessDeniedError(text, hint=_NO_REASON_HINT)
    if status == 404:
        return _key_missing(refusal)
    if status == 416:
        return RangeMissingError(text)
    if status == 412:
        return _precondition_failed(refusal)
    if status == 408 or (status >= 500 and status != 501):
        return TransientError(text)
    return PermanentError(text)
