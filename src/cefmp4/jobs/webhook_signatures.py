"""Signatures of webhooks, by https://www.standardwebhooks.com: what comes is checked, what goes is
signed. Also the older pair of headers, which signs no id."""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping

from cefmp4.config.values import webhook_key

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
OLD_TIMESTAMP, OLD_SIGNATURE = "X-Timestamp", "X-Signature"
REPLAY_WINDOW_S = 300
_VERSION = "v1,"


def sign(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """One signature of those that the header may list."""
    message = b".".join((_raw(message_id), _raw(timestamp), body))
    digest = hmac.digest(webhook_key(secret), message, hashlib.sha256)
    return _VERSION + base64.b64encode(digest).decode()


def sign_hex(secret: str, timestamp: str, body: bytes) -> str:
    """What X-Signature must be. The secret is taken as it is written."""
    message = _raw(timestamp) + b"." + body
    return hmac.new(_raw(secret), message, hashlib.sha256).hexdigest()


def headers_for(secret: str, message_id: str, at: float, body: bytes) -> dict[str, str]:
    timestamp = str(int(at))
    signature = sign(secret, message_id, timestamp, body)
    return {ID: message_id, TIMESTAMP: timestamp, SIGNATURE: signature}


def is_signed(secrets: Iterable[str], headers: Mapping[str, str], body: bytes) -> bool:
    """By one of the secrets. The header lists several signatures while a sender changes its own."""
    listed = [_raw(one) for one in headers.get(SIGNATURE, "").split()]
    message_id, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    found = False
    for secret in secrets:
        right = sign(secret, message_id, timestamp, body).encode()
        for given in listed:
            found |= hmac.compare_digest(given, right)
    return found and bool(message_id)


def is_signed_in_hex(secrets: Iterable[str], headers: Mapping[str, str], body: bytes) -> bool:
    given = _raw(headers.get(OLD_SIGNATURE, "").strip().lower())
    timestamp = headers.get(OLD_TIMESTAMP, "")
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(given, sign_hex(secret, timestamp, body).encode())
    return found


def is_of_now(timestamp: str, now: float) -> bool:
    """So that what somebody overheard is of no use minutes later."""
    is_number = timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12
    return is_number and abs(now - int(timestamp)) <= REPLAY_WINDOW_S


def _raw(text: str) -> bytes:
    """The bytes of a header as they came."""
    return text.encode("utf-8", "surrogateescape")
