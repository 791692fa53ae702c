"""Reads the settings, once, at the start: from the environment and `.env`, older spellings too, and
says in one line what is wrong with one."""

import os
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from cefmp4.config import Settings
from cefmp4.errors import SettingsError
from cefmp4.model.part import MIB

_OLD_SPELLINGS = {
    "PYTHON_LOG_LEVEL": "LOG_LEVEL",
    "REDIS_HOST": "REDIS_URL",
    "REDIS_PORT": "REDIS_URL",
    "STREAM_CHUNK_SIZE_MB": "CHUNK_SIZE_BYTES",
    "S3_ENDPOINT": "S3_ENDPOINT_URL",
    "S3_ACCESS_KEY": "S3_ACCESS_KEY_ID",
    "S3_SECRET_KEY": "S3_SECRET_ACCESS_KEY",
    "S3_BUCKET": "S3_BUCKET_NAME",
}


def load_settings(**overrides: Any) -> tuple[Settings, list[str]]:
    """The settings and the warnings about older spellings. Raises SettingsError: one line that
    names the setting, its value unless it is a secret, and what is allowed."""
    # Older spellings come through pydantic's aliases, except the one whose unit differs.
    given = {**dotenv_values(".env"), **os.environ}
    megabytes = given.get("STREAM_CHUNK_SIZE_MB")
    if megabytes and "CHUNK_SIZE_BYTES" not in given:
        try:
            overrides.setdefault("chunk_size_bytes", int(float(megabytes) * MIB))
        except (ValueError, OverflowError):
            raise SettingsError(f"STREAM_CHUNK_SIZE_MB={megabytes}: it must be a number") from None
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    warnings = [
        f"{old} is an older spelling: use {new}"
        for old, new in _OLD_SPELLINGS.items()
        if given.get(old)
    ]
    if given.get("WEBHOOK_PORT"):
        warnings.append("WEBHOOK_PORT is not used: POST /jobs is answered on PROM_PORT")
    return settings, warnings


_SECRETS = {
    name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
}


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    allowed = first["msg"].removeprefix("Value error, ")
    if not name:
        return allowed
    is_secret = name.lower() in _SECRETS or "SECRET" in name or "TOKEN" in name
    value = "***" if is_secret else first["input"]
    return f"{name.upper()}={value}: {allowed}"
