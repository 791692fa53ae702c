"""How Postgres is reached: what the settings take, and what of them is never shown."""

import pytest

from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings
from cefmp4.errors import SettingsError


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def load() -> Settings:
    return load_settings(env_file=None)[0]


def test_nothing_is_needed_where_nothing_is_kept_in_a_database() -> None:
    settings = load()
    assert settings.database_address is None
    assert not settings.wants_postgres
    with pytest.raises(SettingsError, match="DATABASE_URL is not set"):
        _ = settings.needed_database_address


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:hush@db.lan/films",
        "postgres://user@db.lan",
        "postgresql://",
        "postgresql:///films",
        "postgresql://user:p%40ss@[::1]:5432/films?sslmode=require",
        "postgresql://my_db:5432/films",
        "postgresql://user:a?b#c:d@db.lan/films",  # as psql takes it
        "postgresql://one.lan:5432,two.lan:5433/films?target_session_attrs=read-write",
        "postgresql://%2Fvar%2Frun%2Fpostgresql/films",
        "postgresql://cefmp4@/films?host=%2Fvar%2Frun&port=5432",
        "postgresql://user@db.lan/films?ssl=true",
        "host=db.lan dbname=films user=me password='a b' sslmode=require",
        "dbname = films",
        r"host=db.lan password=a\ b",
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DATABASE_URL", address)
    settings = load()
    assert settings.needed_database_address == address
    assert "hush" not in f"{settings!r} {settings}"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("db.lan:5432/hidden", "it must be postgresql://USER"),
        ("hidden", "it must be postgresql://USER"),
        ("mysql://user:hidden@db.lan/films", "it must start with postgresql:// or postgres://"),
        ("postgresql+asyncpg://user:hidden@db.lan/films", "it must start with postgresql://"),
        ("postgresql://user:a@hidden@db.lan/films", "its host is none; write @ / "),
        ("postgresql://user:a/hidden@db.lan/films", "its host is none; write @ / "),
        ("postgresql://user:1/hidden@db.lan/films", "the name of a database; write @ / "),
        ("postgresql://db.lan/films/hidden", "the name of a database"),
        ("postgresql://db.lan:99999/hidden", "its host is none"),
        ("postgresql://user:hidden%zz@db.lan/films", "%25"),
        ("postgresql://user@db.lan/films?schema=hidden", "an option that is unknown"),
        ("postgresql://user@db.lan/films?hidden", "an option that is unknown"),
        ("postgresql://user:1/?hidden@db.lan/films", "its host is none"),
        ("host=db.lan password='hidden", "it must be postgresql://USER"),
        ("host=db.lan pasword=hidden", "it must be postgresql://USER"),
    ],
)
def test_what_is_no_address_of_postgres_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", address)
    with pytest.raises(SettingsError, match=rf"^DATABASE_URL=\*\*\*: .*{reason}") as caught:
        load()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POSTGRES_POOL_SIZE", "0"),
        ("POSTGRES_POOL_SIZE", "many"),
        ("POSTGRES_TIMEOUT", "0"),
        ("POSTGRES_TIMEOUT", "inf"),
    ],
)
def test_numbers_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}={value}: "):
        load()
