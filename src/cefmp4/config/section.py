"""What the sections of the settings have in common: how a setting is declared, and how its value may
be written."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from cefmp4.config import values
from cefmp4.model.part import GIB

MOST_BYTES = 1024 * 1024 * GIB  # more than any machine has, and still a limit that the kernel takes


def setting(default: Any, about: str, *, small: str = "", big: str = "", **limits: Any) -> Any:
    """A field with what people read of it: its meaning and unit, and what breaks when."""
    return Field(
        default, description=about, json_schema_extra={"small": small, "big": big}, **limits
    )


def hidden(check: Callable[[str], None]) -> AfterValidator:
    """`check` of a secret raises ValueError where it is none that will do."""

    def usable(secret: SecretStr) -> SecretStr:
        check(secret.get_secret_value())
        return secret

    return AfterValidator(usable)


class Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: object, info: ValidationInfo) -> object:
        """Enums in any case; lists with commas or in JSON; folders below `~`."""
        kind: Any = cls.model_fields[info.field_name or ""].annotation
        if not isinstance(value, str):
            return value
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return values.any_case(kind, value)
        if kind in (Path, Path | None):
            return values.folder(value)
        return values.read_list(value) if get_origin(kind) is tuple else value
