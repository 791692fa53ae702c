"""The names of settings: older spellings, names that nothing honours yet, and names that were
probably meant to be one of ours."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from cefmp4.config.settings import Settings
from cefmp4.config.values import endpoint, redis_host, surreal_endpoint
from cefmp4.errors import SettingsError
from cefmp4.log import printable, redact
from cefmp4.model.part import MIB

NAMES = tuple(name.upper() for name in Settings.model_fields)
OLD_SPELLINGS = {
    "PYTHON_LOG_LEVEL": "LOG_LEVEL",
    "STREAM_CHUNK_SIZE_MB": "CHUNK_SIZE_BYTES",
    "S3_ENDPOINT": "S3_ENDPOINT_URL",
    "S3_ACCESS_KEY": "S3_ACCESS_KEY_ID",
    "S3_SECRET_KEY": "S3_SECRET_ACCESS_KEY",
    "S3_BUCKET": "S3_BUCKET_NAME",
    "WORKER_HTTP_PORT": "WORKER_PORT",
}
REDIS_SPELLINGS = ("REDIS_HOST", "REDIS_PORT")  # together they say what REDIS_URL says
# Of the contract, but for parts of the system that are not there yet.
NOT_YET = (
    "MAX_FRAMES_PER_VIDEO", "ENABLE_TRANSCRIPTION", "ENABLE_VISION_ANALYSIS", "ENABLE_EMBEDDINGS",
    "OPENAI_API_KEY", "OPENAI_BASE_URL",
    "VISION_MAX_CONCURRENT",
)  # fmt: skip
_MOVED = {
    "WORKER_DEV_HTTP": "a worker always answers on WORKER_PORT",
}
# What docker-compose.yml asks for beside our settings.
OF_COMPOSE = ("CEFMP4_USER", "FLEET_HOST", "WATCH_DIR_READ_ONLY")
# What the client of AWS asks for itself, and in the environment alone.
OF_AWS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
    "AWS_DEFAULT_REGION", "AWS_ROLE_ARN",
)  # fmt: skip
_KNOWN = (*NAMES, *OLD_SPELLINGS, *NOT_YET, *_MOVED, *OF_COMPOSE, *OF_AWS)
_FIRST_WORDS = {name.partition("_")[0] for name in (*NAMES, *OLD_SPELLINGS)}
_ALIKE = 0.85
_LONGEST_SHOWN = 80
SECRETS = {
    name.upper()
    for name, field in Settings.model_fields.items()
    if "Secret" in str(field.annotation)
} | {"S3_SECRET_KEY", "S3_ACCESS_KEY", "S3_ACCESS_KEY_ID"}
_ADDRESSES: dict[str, Callable[[str], object]] = {
    "REDIS_HOST": redis_host,
    "S3_ENDPOINT": endpoint,
    "S3_ENDPOINT_URL": endpoint,
    "SURREAL_ENDPOINT": surreal_endpoint,
}


def resolve(given: Mapping[str, str]) -> dict[str, str]:
    """`given` with new spellings only. Raises SettingsError where two spellings disagree."""
    _check_redis(given)
    found = {name: value for name, value in given.items() if name not in OLD_SPELLINGS}
    for old, new in OLD_SPELLINGS.items():
        if old not in given:
            continue
        meant = _in_bytes(given[old]) if old == "STREAM_CHUNK_SIZE_MB" else given[old]
        if new in found and not _is_same(new, meant, found[new]):
            raise _disagree(given, old, new)
        found.setdefault(new, meant)
    return found


def spelled_as(given: Mapping[str, str]) -> dict[str, str]:
    """By the name of a setting: the older one that was written instead."""
    spelled = {new: old for old, new in OLD_SPELLINGS.items() if old in given and new not in given}
    if "REDIS_HOST" in given and "REDIS_URL" not in given:
        spelled["REDIS_URL"] = "REDIS_HOST"
    return spelled


def shown(name: str, value: str) -> str:
    """For messages: one short line without secrets. An address that is none may hold one
    anywhere, or be one."""
    if name in SECRETS or "@" in value or not _is_address(name, value):
        return "***"
    text = printable(redact(value))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _is_address(name: str, value: str) -> bool:
    try:
        _ADDRESSES.get(name, str)(value)
    except ValueError:
        return False
    return True


def _in_bytes(megabytes: str) -> str:
    try:
        return str(int(float(megabytes) * MIB))
    except (ValueError, OverflowError):
        text = shown("STREAM_CHUNK_SIZE_MB", megabytes)
        raise SettingsError(f"STREAM_CHUNK_SIZE_MB={text}: it must be a number") from None


def _is_same(name: str, one: str, other: str) -> bool:
    normal: dict[str, Callable[[str], str]] = {
        "LOG_LEVEL": str.upper,
        "S3_ENDPOINT_URL": lambda url: url.rstrip("/"),
    }
    change = normal.get(name, str)
    return change(one) == change(other)


def _check_redis(given: Mapping[str, str]) -> None:
    if "REDIS_URL" not in given:
        return
    try:
        url = urlsplit(given["REDIS_URL"])
        named = {"REDIS_HOST": url.hostname or "", "REDIS_PORT": str(url.port or 6379)}
    except ValueError:
        return  # it is refused for itself
    for old in REDIS_SPELLINGS:
        if old in given and given[old].strip("[]").lower() != named[old]:
            raise _disagree(given, old, "REDIS_URL")


def _disagree(given: Mapping[str, str], old: str, new: str) -> SettingsError:
    both = " and ".join(f"{name}={shown(name, given[name])}" for name in (old, new))
    return SettingsError(f"{both}: two names of one setting that disagree; keep {new} alone")


def warnings_about(given: Mapping[str, str], in_file: Iterable[str]) -> list[str]:
    """`in_file`: the names that were written for us, not for any program of this machine."""
    moved = dict(_MOVED)
    older = {**OLD_SPELLINGS, **dict.fromkeys(REDIS_SPELLINGS, "REDIS_URL")}
    if not {"REDIS_HOST", "REDIS_URL"} & given.keys():
        moved["REDIS_PORT"] = "it belongs to REDIS_HOST, which is not set"
        del older["REDIS_PORT"]
    found = [f"{old} is an older spelling: use {new}" for old, new in older.items() if old in given]
    found += [f"{name} is not used: {why}" for name, why in moved.items() if name in given]
    unused = [name for name in NOT_YET if name in given]
    if unused:
        found.append(f"not used by this version: {', '.join(unused)}")
    return found + _typing_errors(given, set(in_file))


def _typing_errors(given: Mapping[str, str], in_file: set[str]) -> list[str]:
    found = []
    for name in sorted(given.keys() - set(_KNOWN)):
        if name in in_file or name.partition("_")[0] in _FIRST_WORDS:
            close = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=_ALIKE)
            found += [f"{shown('', name)} is no setting: did you mean {close[0]}?"] if close else []
    return found
