"""What the errors of Postgres and its driver mean to us. No message of the server holds a password;
the driver quotes an address that it cannot read, so its words for that are never repeated."""

import re

import psycopg
from psycopg_pool import PoolClosed

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
from cefmp4.log import redact

SCHEMA = "cefmp4"

_HIDDEN = "DATABASE_URL=***"
_SPELLING = "write @ / ? # in a password as %40 %2F %3F %23"
# Connection lost, out of something, going down or coming up, a standby, a transaction that we left
# open for too long.
_UNAVAILABLE = ("08", "53", "57P", "25006", "25P03", "25P04")
_TOO_SLOW = ("57014", "55P03")  # a statement, a lock
_COLLIDED = ("40",)  # deadlocks and such
_FULL = "53100"
_TOO_MANY = "53300"

# Whoever is refused while connecting is told in words alone, without a code.
_STRANGER = re.compile(
    r"password authentication failed|no password supplied|role \".*\" does not exist"
    r"|no pg_hba\.conf entry|authentication failed|is not permitted to log in"
    r"|permission denied for database|SASL authentication|requires? a valid client certificate"
)
_NO_DATABASE = re.compile(r"database \"(.*?)\" does not exist")
_UNUSABLE = re.compile(
    r"invalid \w+ value|certificate|private key|definition of service|unexpected spaces"
    r"|server does not support SSL"
)
_PREFIX = re.compile(r"connection (?:failed|is bad): ")
_FULL_HOUSE = re.compile(r"too many (?:clients|connections)|remaining connection slots")
_RELATION = re.compile(r"relation \"(.*?)\"")


def unusable_address() -> SettingsError:
    """Without the words of the driver, which quote what stood there."""
    return SettingsError(f"{_HIDDEN}: it is no address of a Postgres", hint=_SPELLING)


def translated(error: psycopg.Error) -> CefError:
    if isinstance(error, PoolClosed):
        return ServerUnreachableError("the connection to Postgres was closed by us")
    code = error.sqlstate or ""
    first, _, _ = (error.diag.message_primary or str(error)).strip().partition("\n")
    text = redact(" ".join(first.split())) or type(error).__name__
    if code:
        return _of_request(code, text)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return _of_connection(text)
    return PermanentError(f"Postgres cannot be asked this: {text}")


def is_full_house(error: Exception) -> bool:
    """The server has no connection left to give, while those that we have still work."""
    return isinstance(error, psycopg.Error) and bool(_FULL_HOUSE.search(str(error)))


def _of_connection(text: str) -> CefError:
    text = _PREFIX.sub("", text)
    if missing := _NO_DATABASE.search(text):
        return SettingsError(
            f"{_HIDDEN}: the database {missing[1]} does not exist",
            hint="make it (createdb), or name another one",
        )
    if _STRANGER.search(text):
        return AccessDeniedError(
            f"Postgres refused us: {text}",
            hint="check user and password in DATABASE_URL, and the server's pg_hba.conf",
            is_stranger=True,
        )
    if _UNUSABLE.search(text):
        return SettingsError(f"{_HIDDEN}: {text}", hint="correct it")
    if _FULL_HOUSE.search(text):
        return _has_no_connection_left()
    return ServerUnreachableError(f"Postgres is out of reach: {text}")


def _has_no_connection_left() -> ServerUnreachableError:
    return ServerUnreachableError(
        "Postgres has no connection left for us",
        hint="raise its max_connections, or lower POSTGRES_POOL_SIZE",
    )


def _of_request(code: str, text: str) -> CefError:
    if code == _FULL:
        return StoreFullError(f"the disk of Postgres is full: {text}")
    if code == _TOO_MANY:
        return _has_no_connection_left()
    if code.startswith(_TOO_SLOW):
        return ServerUnreachableError(
            f"Postgres was too slow: {text}", hint="POSTGRES_TIMEOUT is how long we wait"
        )
    if code.startswith(_UNAVAILABLE):
        return ServerUnreachableError(f"Postgres cannot serve now: {text}")
    if code.startswith(_COLLIDED):
        return TransientError(f"Postgres could not do two things at once: {text}")
    return _of_what_is_asked(code, text)


def _of_what_is_asked(code: str, text: str) -> CefError:
    if code == "42501":
        return AccessDeniedError(
            f"Postgres refused us: {text}",
            hint="give the user in DATABASE_URL that right, or name another user",
        )
    if code.startswith("28"):
        return AccessDeniedError(
            f"Postgres refused us: {text}",
            hint="check user and password in DATABASE_URL",
            is_stranger=True,
        )
    if code == "3D000":
        return SettingsError(f"{_HIDDEN}: {text}", hint="make it (createdb), or name another one")
    if code in ("42P01", "3F000"):
        return TablesMissingError(f"Postgres lacks a table: {text}", hint=_who_makes(text))
    if code == "42703":
        return TablesMissingError(f"Postgres lacks a column: {text}", hint=_who_makes(text))
    return PermanentError(f"Postgres refused a request: {text}")


def _who_makes(text: str) -> str:
    """Of a table that is not there, or is another than we know."""
    named = _RELATION.search(text)
    if named and named[1].startswith(f"{SCHEMA}."):
        return (
            "is DATABASE_URL the right database? Every start of the service makes its tables there"
        )
    return "POSTGRES_JOBS_TABLE names the table of jobs, DATABASE_URL the database it is in"
