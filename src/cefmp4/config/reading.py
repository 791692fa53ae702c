"""Reads the settings, once, at the start: from the environment and `.env`, older spellings too, and
says in one line what is wrong with one."""

import io
import os
import re
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import ValidationError

from cefmp4.config import spellings
from cefmp4.config.general import AppEnv
from cefmp4.config.settings import Settings
from cefmp4.config.values import unquoted
from cefmp4.errors import SettingsError
from cefmp4.trust import check_trusted

ENV_FILE = Path(".env")
_NAME = re.compile(r"\s*(?:export\s+)?(\w+)")


def load_settings(env_file: Path | None = ENV_FILE) -> tuple[Settings, list[str]]:
    """The settings and the warnings about their names. Raises SettingsError: one line that names
    the setting as it was written, its value unless it may be a secret, and what is allowed."""
    in_file = _read(env_file)
    given = _given(in_file)
    values = spellings.resolve(given)
    spelled = spellings.spelled_as(given)
    try:
        settings = Settings.model_validate(
            {name.lower(): value for name, value in values.items() if name in spellings.NAMES}
        )
    except ValidationError as error:
        raise SettingsError(_explain(error, given, spelled)) from None
    return settings.spelled(spelled).with_others(in_file), spellings.warnings_about(given, in_file)


def is_production(env_file: Path | None = ENV_FILE) -> bool:
    """Whether APP_ENV says so, whatever may be wrong with any other setting."""
    try:
        found = _given(_read(env_file))
    except SettingsError:
        found = _given({})
    return found.get("APP_ENV", "").lower() == AppEnv.PRODUCTION


def _given(in_file: dict[str, str]) -> dict[str, str]:
    """What is set, by its name in capitals; the environment wins, and nothing is no value there
    either: it hides none."""
    given = {}
    in_environment = ((name.upper(), text) for name, text in os.environ.items())
    for name, text in (*in_file.items(), *in_environment):
        # A secret stays as it is, whatever it begins and ends with.
        value = text if name in spellings.SECRETS else unquoted(text)
        # For a service called redis, Kubernetes sets REDIS_PORT=tcp://10.0.0.1:6379 in every pod.
        if value and not (name.endswith("_PORT") and value.startswith("tcp://")):
            given[name] = value
    return given


def _read(env_file: Path | None) -> dict[str, str]:
    if env_file is None or not env_file.exists():
        return {}
    if not env_file.is_file():
        raise SettingsError(
            f"{env_file} is no file", hint="docker makes a folder where one is missing: remove it"
        )
    check_trusted(env_file, str(env_file))
    try:
        text = env_file.read_text("utf-8-sig")  # editors on Windows mark the encoding
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsError(f"{env_file} cannot be read: {reason}") from None
    ours = {*spellings.NAMES, *spellings.OLD_SPELLINGS}
    for binding in parse_stream(io.StringIO(text)):
        name = _NAME.match(binding.original.string)
        if binding.error and name and name[1].upper() in ours:
            where = f"line {binding.original.line} of {env_file}"
            raise SettingsError(
                f"{name[1]}: {where} cannot be read",
                hint="write NAME=VALUE, with the value in single quotes",
            )
    found = dotenv_values(stream=io.StringIO(text))
    return {name.upper(): value for name, value in found.items() if value is not None}


def _explain(error: ValidationError, given: dict[str, str], spelled: dict[str, str]) -> str:
    first = error.errors(include_url=False)[0]
    allowed = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        for new, old in spelled.items():
            allowed = allowed.replace(new, old)
        return allowed
    name = str(first["loc"][0]).upper()
    name = spelled.get(name, name)
    return f"{name}={spellings.shown(name, given[name])}: {allowed}"
