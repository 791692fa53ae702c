"""Source and store of a process share its connections. No server is asked here."""

import pytest
from pydantic import SecretStr

from cefmp4.config.settings import Settings
from cefmp4.errors import SettingsError, TablesMissingError
from cefmp4.storage.postgres.shared import shared_postgres, while_running

URL = SecretStr("postgresql://u:secret@127.0.0.1:1/films")


def settings(**changes: object) -> Settings:
    return Settings.model_validate({"database_url": URL, **changes})


async def test_all_who_use_one_database_have_one_pool() -> None:
    async with shared_postgres(settings()) as one:
        async with shared_postgres(settings()) as same:
            assert same is one
        async with shared_postgres(settings(postgres_pool_size=2)) as other:
            assert other is not one
        async with shared_postgres(settings()) as same:
            assert same is one  # it was not closed by who left before
    async with shared_postgres(settings()) as another:
        assert another is not one


async def test_an_address_that_is_not_set_is_named() -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL is not set"):
        async with shared_postgres(settings(database_url=None)):
            pass


def test_after_the_start_a_database_that_is_gone_may_come_back() -> None:
    with pytest.raises(TablesMissingError, match="does not exist"), while_running():
        raise SettingsError("DATABASE_URL=***: the database films does not exist")
