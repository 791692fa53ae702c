"""What an error of Postgres means, by its code or, while connecting, by its words."""

import psycopg
import pytest

from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    PermanentError,
    ServerUnreachableError,
    SettingsError,
    StoreFullError,
    TablesMissingError,
    TransientError,
)
from cefmp4.storage.postgres.errors import translated

PLACE = 'connection failed: connection to server at "10.0.0.5", port 5432 failed: '


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("08006", ServerUnreachableError),  # the connection was lost
        ("57P01", ServerUnreachableError),  # it is being stopped
        ("57P03", ServerUnreachableError),  # it is starting
        ("53300", ServerUnreachableError),  # too many connections
        ("53200", ServerUnreachableError),  # out of memory
        ("53100", StoreFullError),
        ("57014", ServerUnreachableError),  # a statement took too long
        ("55P03", ServerUnreachableError),  # a lock took too long
        ("25006", ServerUnreachableError),  # a standby
        ("25P03", ServerUnreachableError),  # we were idle in a transaction
        ("40001", TransientError),
        ("40P01", TransientError),
        ("42501", AccessDeniedError),
        ("28P01", AccessDeniedError),
        ("3D000", SettingsError),
        ("42P01", TablesMissingError),
        ("42703", TablesMissingError),
        ("23505", PermanentError),
        ("XX000", PermanentError),
    ],
)
def test_by_code(code: str, expected: type[CefError]) -> None:
    assert type(translated(psycopg.errors.lookup(code)("what the server says"))) is expected


@pytest.mark.parametrize(
    ("words", "expected", "said"),
    [
        ("Connection refused\n\tIs the server running?", ServerUnreachableError, "refused"),
        ("FATAL:  the database system is starting up", ServerUnreachableError, "starting up"),
        ("FATAL:  sorry, too many clients already", ServerUnreachableError, "max_connections"),
        ('FATAL:  too many connections for role "me"', ServerUnreachableError, "max_connections"),
        ('FATAL:  password authentication failed for user "me"', AccessDeniedError, "password"),
        ("fe_sendauth: no password supplied", AccessDeniedError, "no password supplied"),
        ('FATAL:  role "me" does not exist', AccessDeniedError, '"me"'),
        ('FATAL:  no pg_hba.conf entry for host "::1"', AccessDeniedError, "pg_hba"),
        ('FATAL:  role "me" is not permitted to log in', AccessDeniedError, "log in"),
        ('FATAL:  database "films" does not exist', SettingsError, "the database films"),
        ("server does not support SSL, but SSL was required", SettingsError, "SSL"),
        ('invalid sslmode value: "sometimes"', SettingsError, "sometimes"),
    ],
)
def test_by_words(words: str, expected: type[CefError], said: str) -> None:
    error = translated(psycopg.OperationalError(PLACE + words))
    assert type(error) is expected
    assert said in str(error)
    assert "\n" not in str(error)


def test_each_setting_that_may_be_at_fault_is_named() -> None:
    nobody = translated(psycopg.OperationalError(f'{PLACE}FATAL:  role "me" does not exist'))
    assert "DATABASE_URL" in str(nobody)
    missing = psycopg.errors.UndefinedTable('relation "films" does not exist')
    assert "POSTGRES_JOBS_TABLE" in str(translated(missing))
    ours = psycopg.errors.UndefinedTable('relation "cefmp4.results" does not exist')
    assert "POSTGRES_JOBS_TABLE" not in str(translated(ours))
    assert "DATABASE_URL" in str(translated(ours))
