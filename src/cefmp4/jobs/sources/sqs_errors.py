"""Turns what botocore, aiohttp and the replies of SQS say into our errors, once."""

from typing import Any

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    InvariantError,
    PermanentError,
    ServerUnreachableError,
    ThrottledError,
    TransientError,
)
from cefmp4.log import redact

SETTING = "AWS_SQS_QUEUE_URL"
RIGHTS = ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility")

_STRANGER = {
    "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "InvalidSecurity",
    "SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature",
    "IncompleteSignatureException", "MissingAuthenticationToken", "ExpiredToken",
    "MissingAuthenticationTokenException", "ExpiredTokenException", "OptInRequired",
}  # fmt: skip
_REFUSED = {"AccessDenied", "AccessDeniedException", "KmsAccessDenied", "KMS.AccessDeniedException"}
_MISSING = {
    "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "InvalidAddress",
    "AWS.SimpleQueueService.QueueDeletedRecently",
}  # fmt: skip
_THROTTLED = {
    "RequestThrottled", "Throttling", "ThrottlingException", "OverLimit", "KmsThrottled",
    "KMS.ThrottlingException",
}  # fmt: skip
_HINT_OF_KEYS = (
    f"{SETTING}: the keys are those of the AWS credential chain: AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY in the environment (not in .env), a profile, or a role"
)
_HINT_OF_RIGHTS = f"{SETTING}: allow sqs:GetQueueAttributes and " + ", ".join(
    f"sqs:{right}" for right in RIGHTS
)
HINT_OF_NAME = f"check {SETTING}: its account, name and region, and that the queue is there"
_NO_ANSWER = (HTTPClientError, BotoConnectionError, aiohttp.ClientError, OSError)
_NO_KEYS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
FOREIGN_ERRORS = (ClientError, BotoCoreError, ResponseParserError, aiohttp.ClientError, OSError)


def translate(operation: str, error: Exception) -> CefError:
    if isinstance(error, ClientError):
        return _refusal(operation, error)
    if isinstance(error, _NO_KEYS):
        return AccessDeniedError(
            f"no keys for SQS: {redact(str(error))}", hint=_HINT_OF_KEYS, is_stranger=True
        )
    if isinstance(error, _NO_ANSWER):
        cause = getattr(error, "kwargs", {}).get("error") or error
        return ServerUnreachableError(f"SQS did not answer {operation}: {type(cause).__name__}")
    if isinstance(error, ResponseParserError):
        return TransientError(f"SQS {operation} got a reply that is not SQS's")
    if isinstance(error, BotoCoreError):  # a profile that is not there, a token that has expired
        return AccessDeniedError(
            f"SQS {operation} cannot be sent: {redact(str(error))}",
            hint=_HINT_OF_KEYS,
            is_stranger=True,
        )
    return InvariantError(f"SQS {operation} broke: {type(error).__name__}")


def _refusal(operation: str, error: ClientError) -> CefError:
    response: Any = error.response
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(response.get("Error", {}).get("Code") or "")
    said = ": ".join(filter(None, (code, redact(str(response["Error"].get("Message") or "")))))
    text = f"SQS {operation} failed, status {status}" + (f", {said}" if said else "")
    if code in _STRANGER:
        return AccessDeniedError(text, hint=_HINT_OF_KEYS, is_stranger=True)
    if code in _THROTTLED or status in {429, 503}:
        return ThrottledError(text)
    if code in _MISSING:
        return PermanentError(text, hint=HINT_OF_NAME)
    if code in _REFUSED or status in {401, 403}:
        return AccessDeniedError(text, hint=_HINT_OF_RIGHTS)
    if status >= 500:
        return TransientError(text)
    return PermanentError(text, hint=HINT_OF_NAME if status == 404 else "")
