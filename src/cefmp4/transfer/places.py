"""Which local name a key gets, and which key a local file. Pure; everything that it is given may be
hostile."""

import os

from cefmp4.errors import RefusedError
from cefmp4.model import names

LONGEST_KEY = 1024  # bytes, in every S3

_NO_NAMES = ("", os.curdir, os.pardir)


def path_below(key: str, prefix: str | None = None) -> str:
    """Where the object goes below the folder that is given: under its last name, or under all that
    comes after `prefix`. Raises RefusedError where that is no path that stays in there."""
    path = key.rpartition("/")[2] if prefix is None else key.removeprefix(prefix)
    if "\0" in path or any(name in _NO_NAMES for name in path.split("/")):
        raise RefusedError("no file can be called like that, or it would lie outside of the folder")
    return path


def is_key(text: str) -> bool:
    return 0 < len(text.encode("utf-8", "surrogatepass")) <= LONGEST_KEY and not any(
        0xD800 <= ord(char) <= 0xDFFF for char in text
    )


def key_of(relpath: str, prefix: str) -> str:
    """For a file that `relpath` leads to from where it was asked for. Raises RefusedError."""
    folder = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    key = names.key_safe(f"{folder}{relpath}")
    if any(name in _NO_NAMES for name in key.strip("/").split("/")):
        raise RefusedError(f"its key would be {key!a}, which servers take for another one")
    if len(key.encode()) > LONGEST_KEY:
        raise RefusedError(f"its key would be longer than {LONGEST_KEY} bytes")
    if names.is_own_key(key):
        raise RefusedError("keys like that are what CefMP4 makes of recordings", hint="--prefix")
    return key
