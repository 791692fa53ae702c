"""What SurrealDB says, as errors of ours."""

import pytest
from surrealdb import NotAllowedError, ServerError
from websockets.exceptions import InvalidHandshake

from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    PermanentError,
    ServerUnreachableError,
    TransientError,
)
from cefmp4.storage.surreal.errors import (
    ConflictError,
    ConnectionLostError,
    SessionExpiredError,
    UnreadableError,
    failure_of,
    translated,
)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (ConnectionRefusedError("refused"), ServerUnreachableError),
        (TimeoutError(), ServerUnreachableError),
        (InvalidHandshake("no upgrade"), ServerUnreachableError),
        (RuntimeError("Transaction read conflict: it can be retried"), ConflictError),
        (
            RuntimeError("Failed to commit transaction due to a read or write conflict"),
            ConflictError,
        ),
        (ServerError("Internal", "There was a problem with authentication"), AccessDeniedError),
        (NotAllowedError("NotAllowed", "no such right"), AccessDeniedError),
        (ServerError("", "IAM error: Not enough permissions to do this"), AccessDeniedError),
        (ServerError("", "The session has expired"), SessionExpiredError),
        (ServerError("Query", "it exceeded the timeout of 1s"), TransientError),
        (ValueError("Failed to encode CBOR response: unsupported"), UnreadableError),
        (RuntimeError("Parse error: unexpected token"), PermanentError),
        (ConnectionLostError(), ConnectionLostError),
    ],
    ids=str,
)
def test_errors(error: Exception, ours: type[CefError]) -> None:
    assert type(translated(error)) is ours


def test_the_statement_that_made_the_others_fail_is_told() -> None:
    others = "The query was not executed due to a failed transaction"
    error = failure_of(
        [
            {"status": "ERR", "result": others},
            {"status": "ERR", "result": "it exists already"},
            {"status": "ERR", "result": others},
        ]
    )
    assert "it exists already" in str(error)
    assert failure_of([{"status": "OK", "result": 1}]) is None


def test_a_refusal_names_the_settings() -> None:
    error = translated(ServerError("", "IAM error: Not enough permissions to do this"))
    assert "SURREAL_USERNAME" in error.hint
