"""Postgres, for those who bring jobs from one or want results in one."""

from typing import Annotated

from pydantic import SecretStr

from cefmp4.config import values
from cefmp4.config.section import Section, hidden, setting
from cefmp4.errors import SettingsError


class DatabaseSettings(Section):
    database_url: Annotated[SecretStr, hidden(values.check_database_url)] | None = setting(
        None, "address of Postgres: postgresql://USER:PASSWORD@HOST/DATABASE, or host=… dbname=…"
    )
    postgres_pool_size: int = setting(
        5, "connections to Postgres that one process may have",
        small="requests wait for each other", big="other programs find max_connections used up",
        ge=1, le=100,
    )  # fmt: skip
    postgres_timeout: float = setting(
        30, "seconds until a connection to Postgres, or its answer, must be there",
        small="a busy server counts as one that is away", big="one that hangs is noticed late",
        ge=1, le=3600,
    )  # fmt: skip

    @property
    def database_address(self) -> str | None:
        return self.database_url.get_secret_value() if self.database_url else None

    @property
    def needed_database_address(self) -> str:
        if self.database_address is None:
            raise SettingsError(
                "DATABASE_URL is not set", hint="set it, or start `cefmp4 up`, which brings its own"
            )
        return self.database_address
