"""One thing that `cefmp4 doctor` looked at."""

from dataclasses import dataclass
from enum import StrEnum

from cefmp4.errors import AccessDeniedError, CefError, SettingsError


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works, with a cost that is named
    FAIL = "fail"  # uploads will not work, or are in danger


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`advice` is one line that says what to do; it is empty where nothing is to be done."""

    subject: str
    level: Level
    detail: str
    advice: str = ""
    is_setting: bool = False  # a setting is wrong: with it, nothing of ours would start


def ok(subject: str, detail: str) -> Diagnosis:
    return Diagnosis(subject, Level.OK, detail)


def warn(subject: str, detail: str, advice: str) -> Diagnosis:
    return Diagnosis(subject, Level.WARN, detail, advice)


def fail(subject: str, detail: str, advice: str) -> Diagnosis:
    return Diagnosis(subject, Level.FAIL, detail, advice)


def fail_of(subject: str, error: CefError, advice: str) -> Diagnosis:
    """The error's own hint is better advice than ours."""
    is_stranger = isinstance(error, AccessDeniedError) and error.is_stranger
    is_setting = is_stranger or isinstance(error, SettingsError)
    return Diagnosis(subject, Level.FAIL, error.args[0], error.hint or advice, is_setting)
