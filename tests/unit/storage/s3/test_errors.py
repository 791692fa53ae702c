import socket
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError
from botocore.parsers import ResponseParserError

from cefmp4.errors import (
    AccessDeniedError,
    BucketMissingError,
    CefError,
    InvariantError,
    PermanentError,
    ProofFailedError,
    ServerUnreachableError,
    StoreFullError,
    ThrottledError,
    TransientError,
    UploadGoneError,
)
from cefmp4.storage.s3.errors import (
    KeyMissingError,
    RangeMissingError,
    Refusal,
    refusal_from_reply,
    to_error,
    translate,
)


def test_a_head_that_is_refused_without_a_word_is_a_matter_of_access() -> None:
    """An expired token looks so; a stream waits for the next one, and is not failed."""
    reply = {"Error": {"Code": "400", "Message": "Bad Request"}}
    error = ClientError({**reply, "ResponseMetadata": {"HTTPStatusCode": 400}}, "HeadObject")  # type: ignore[typeddict-item]
    assert isinstance(translate("HeadObject", error), AccessDeniedError)
    assert isinstance(translate("PutObject", error), PermanentError)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (500, "InternalError", TransientError),
        (502, "", TransientError),
        (504, "", TransientError),
        (408, "", TransientError),
        (503, "", ThrottledError),
        (503, "SlowDown", ThrottledError),
        (429, "", ThrottledError),
        (507, "InsufficientStorage", StoreFullError),
        (507, "XMinioStorageFull", StoreFullError),
        (507, "", StoreFullError),
        (200, "InternalError", TransientError),
        (500, "InvalidPart", ProofFailedError),
        (403, "AccessDenied", AccessDeniedError),
        (403, "", AccessDeniedError),
        (400, "ExpiredToken", AccessDeniedError),
        (403, "RequestTimeTooSkewed", AccessDeniedError),
        (404, "NoSuchBucket", BucketMissingError),
        (404, "NoSuchUpload", UploadGoneError),
        (400, "BadDigest", ProofFailedError),
        (400, "XAmzContentChecksumMismatch", ProofFailedError),
        (400, "InvalidPartOrder", ProofFailedError),
        (400, "EntityTooSmall", ProofFailedError),
        (412, "PreconditionFailed", ProofFailedError),
        (416, "InvalidRange", RangeMissingError),
        (301, "PermanentRedirect", PermanentError),
        (501, "NotImplemented", PermanentError),
        (400, "MalformedXML", PermanentError),
        (400, "SomethingNew", PermanentError),
    ],
)
def test_each_refusal_is_one_error(status: int, code: str, expected: type[CefError]) -> None:
    error = to_error(Refusal(operation="UploadPart", status=status, code=code))
    assert type(error) is expected
    if isinstance(error, AccessDeniedError):
        assert error.is_stranger is (code not in {"AccessDenied", ""})


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("HeadObject", KeyMissingError),
        ("ListParts", UploadGoneError),  # Ceph
        ("UploadPartCopy", ProofFailedError),
    ],
)
def test_a_missing_key_depends_on_what_was_asked(operation: str, expected: type[CefError]) -> None:
    assert type(to_error(Refusal(operation=operation, status=404, code="NoSuchKey"))) is expected


def test_an_invalid_request_about_the_checksum_is_a_failed_proof() -> None:
    refusal = Refusal(
        operation="UploadPart",
        status=400,
        code="InvalidRequest",
        message="Value for x-amz-checksum-crc64nvme header is invalid.",
    )
    assert isinstance(to_error(refusal), ProofFailedError)


def test_a_raw_reply_is_read() -> None:
    body = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>soon</Message></Error>"
    refusal = refusal_from_reply("UploadPart", 503, {"Retry-After": "7"}, body)
    error = to_error(refusal)
    assert isinstance(error, ThrottledError)
    assert error.retry_after_s == 7
    html = refusal_from_reply("UploadPart", 502, {}, b"<html>Bad gateway<br>")
    assert type(to_error(html)) is TransientError


def test_a_namespace_does_not_hide_the_code() -> None:
    body = (
        b'<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Code>NoSuchUpload</Code></Error>'
    )
    assert refusal_from_reply("UploadPart", 404, {}, body).code == "NoSuchUpload"


def test_the_client_librarys_errors() -> None:
    reply = {
        "Error": {"Code": "SlowDown", "Message": "m"},
        "ResponseMetadata": {"HTTPStatusCode": 503, "HTTPHeaders": {"retry-after": "3"}},
    }
    error = translate("HeadObject", ClientError(reply, "HeadObject"))  # type: ignore[arg-type]
    assert isinstance(error, ThrottledError)
    assert error.retry_after_s == 3
    unreachable = EndpointConnectionError(
        endpoint_url="http://h/?X-Amz-Signature=abc", error=ConnectionRefusedError(111, "refused")
    )
    for foreign in (unreachable, aiohttp.ServerDisconnectedError(), TimeoutError()):
        translated = translate("HeadObject", foreign)
        assert type(translated) is ServerUnreachableError
        assert "abc" not in str(translated)
    assert type(translate("X", ResponseParserError("junk"))) is TransientError
    assert type(translate("X", ParamValidationError(report="r"))) is PermanentError
    assert type(translate("X", ZeroDivisionError())) is InvariantError


def test_a_signed_url_never_shows() -> None:
    refusal = Refusal(
        operation="UploadPart",
        status=403,
        code="SignatureDoesNotMatch",
        message="GET http://h/b?X-Amz-Credential=AK&X-Amz-Signature=abcdef",
    )
    text = str(to_error(refusal))
    assert "abcdef" not in text
    assert "AK" not in text
    assert "S3_SECRET_ACCESS_KEY" in text  # the hint


def test_a_reply_without_a_body_says_nothing_of_none() -> None:
    reply = {"Error": {"Code": None, "Message": None}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    error = translate("HeadObject", ClientError(reply, "HeadObject"))  # type: ignore[arg-type]
    assert error.args[0] == "S3 HeadObject failed, status 403"


def test_a_name_that_leads_nowhere_is_told() -> None:
    lost = socket.gaierror(-2, "Name or service not known")
    key: Any = ConnectionKey("store.example", 9000, True, True, None, None, None)
    for foreign in (
        aiohttp.ClientConnectorDNSError(key, lost),
        EndpointConnectionError(
            endpoint_url="http://h", error=aiohttp.ClientConnectorDNSError(key, lost)
        ),
    ):
        said = str(translate("HeadObject", foreign))
        assert said.endswith("HeadObject: store.example: Name or service not known")
