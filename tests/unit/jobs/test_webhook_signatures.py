"""Signatures of Standard Webhooks: those that its makers' libraries make, and nothing else."""

import hmac

import pytest

from cefmp4.jobs.webhook_signatures import (
    headers_for,
    is_of_now,
    is_signed,
    is_signed_in_hex,
    sign,
    sign_hex,
)

# What their own libraries are tested with.
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
KNOWN = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def headers(signature: str, message_id: str = MESSAGE, at: str = AT) -> dict[str, str]:
    return {"webhook-id": message_id, "webhook-timestamp": at, "webhook-signature": signature}


def test_the_known_signature_is_made_and_found_right() -> None:
    assert sign(KEY, MESSAGE, AT, BODY) == KNOWN
    assert headers_for(KEY, MESSAGE, int(AT) + 0.9, BODY) == headers(KNOWN)
    assert is_signed([KEY], headers(KNOWN), BODY)


def test_a_text_that_is_no_base64_is_the_key_as_it_is() -> None:
    expected = hmac.new(b"just a text", b"m.1." + BODY, "sha256").digest()
    mine = sign("just a text", "m", "1", BODY)
    assert mine.startswith("v1,")
    assert is_signed(["just a text"], headers(mine, "m", "1"), BODY)
    assert len(expected) == 32


def test_one_of_several_signatures_and_secrets_is_enough() -> None:
    listed = f"v1a,AAAA v1,{'A' * 43}= {KNOWN}"
    assert is_signed(["another", KEY], headers(listed), BODY)
    assert not is_signed(["another"], headers(listed), BODY)
    assert not is_signed([], headers(listed), BODY)


@pytest.mark.parametrize(
    "wrong",
    [
        headers(""),
        headers("v1"),
        headers("v1,"),
        headers(KNOWN.replace("v1,", "")),
        headers(KNOWN.replace("v1,", "v2,")),
        headers(KNOWN.rstrip("=")),
        headers(KNOWN.replace(",", ", ")),
        headers("\udcff" * 47),
        headers(KNOWN, message_id="msg_other"),
        headers(KNOWN, at="1614265331"),
        headers(sign(KEY, "", AT, BODY), message_id=""),  # an id is needed
        {},
    ],
)
def test_what_is_not_signed(wrong: dict[str, str]) -> None:
    assert not is_signed([KEY], wrong, BODY)
    assert not is_signed([KEY], headers(KNOWN), BODY + b" ")


def test_every_comparison_takes_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the library's own function, and all of them whether or not one was right already."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert is_signed([KEY, "another"], headers(f"{KNOWN} v1,AAAA"), BODY)
    assert len(compared) == 4
    old = {"X-Timestamp": AT, "X-Signature": sign_hex(KEY, AT, BODY)}
    assert is_signed_in_hex([KEY, "another"], old, BODY)
    assert len(compared) == 6


def test_the_older_pair_takes_the_secret_as_it_is_written() -> None:
    expected = hmac.new(KEY.encode(), AT.encode() + b"." + BODY, "sha256").hexdigest()
    assert sign_hex(KEY, AT, BODY) == expected
    assert is_signed_in_hex(
        [KEY], {"X-Timestamp": AT, "X-Signature": f" {expected.upper()} "}, BODY
    )
    assert not is_signed_in_hex([KEY], {"X-Timestamp": "1", "X-Signature": expected}, BODY)
    assert not is_signed_in_hex([KEY], {}, BODY)


@pytest.mark.parametrize(
    ("timestamp", "is_right"),
    [("1000", True), ("700", True), ("1300", True), ("699", False), ("1301", False),
     ("", False), ("nan", False), ("1e3", False), ("-1000", False), ("1000.0", False),
     ("\u0661" * 4, False), ("9" * 5000, False)],
)  # fmt: skip
def test_a_timestamp_is_of_now_within_five_minutes(timestamp: str, is_right: bool) -> None:
    assert is_of_now(timestamp, 1000.0) is is_right
