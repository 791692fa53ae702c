"""What the settings of SurrealDB take, and how they refuse the rest without showing a secret."""

from pathlib import Path

import pytest

from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings
from cefmp4.errors import SettingsError


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def load(monkeypatch: pytest.MonkeyPatch, **given: str) -> tuple[Settings, list[str]]:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return load_settings(env_file=None)


def test_all_names_of_it_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, warnings = load(
        monkeypatch,
        SURREAL_ENDPOINT="ws://db:8000/rpc",
        SURREAL_USERNAME="root",
        SURREAL_PASSWORD="p",
        SURREAL_NAMESPACE="films",
        SURREAL_DATABASE="media",
    )
    assert warnings == []
    assert settings.surreal_endpoint == "ws://db:8000"
    assert "'p'" not in repr(settings)
    assert (settings.surreal_namespace, settings.surreal_database) == ("films", "media")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://db.lan:8000", "ws://db.lan:8000"),
        ("https://db.lan/rpc/", "wss://db.lan"),
        ("wss://db.lan", "wss://db.lan"),
        ("ws://surreal_db:8000", "ws://surreal_db:8000"),
        ("ws://[::1]:8000", "ws://[::1]:8000"),
        ("mem://", "mem://"),
        ("surrealkv:///var/lib/db", "surrealkv:///var/lib/db"),
        ("file://data/db", "file://data/db"),
        ("surrealkv://~/db", f"surrealkv://{Path.home()}/db"),
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, written: str, meant: str) -> None:
    assert load(monkeypatch, SURREAL_ENDPOINT=written)[0].surreal_endpoint == meant


@pytest.mark.parametrize(
    "address",
    [
        "db:8000",
        "rocksdb:///var/lib/db",
        "surrealkv://",
        "ws://",
        "ws://db/films",
        "ws://db:99999",
        "ws://root:hunter2@db:8000",
        "ws://db:8000?password=hunter2",
        "ws://db:8000#hunter2",
    ],
)
def test_addresses_that_are_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with pytest.raises(SettingsError, match=r"^SURREAL_ENDPOINT=\*\*\*: (it|its) ") as caught:
        load(monkeypatch, SURREAL_ENDPOINT=address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["SURREAL_NAMESPACE", "SURREAL_DATABASE"])
@pytest.mark.parametrize("value", ["a/b", "x" * 129, "a\nb"])
def test_names_that_are_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}="):
        load(monkeypatch, **{name: value})


@pytest.mark.parametrize("name", ["SURREAL_USERNAME", "SURREAL_PASSWORD"])
def test_a_user_has_a_password(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(SettingsError, match="go together"):
        load(monkeypatch, **{name: "root"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"JOB_SOURCE_TYPE": "internal,surrealdb"}, "JOB_SOURCE_TYPE has surrealdb"),
        ({"STORAGE_TYPE": "surrealdb"}, "STORAGE_TYPE is surrealdb"),
        ({"STORAGE_TYPE": "hybrid", "METADATA_STORAGE": "surrealdb"}, "STORAGE_TYPE is hybrid"),
    ],
)
def test_who_chooses_it_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=f"^SURREAL_ENDPOINT is not set, and {said}"):
        load(monkeypatch, **given)
    settings, _ = load(monkeypatch, SURREAL_ENDPOINT="ws://db:8000", **given)
    assert settings.uses_surrealdb


def test_it_is_of_no_concern_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not load(monkeypatch, SURREAL_ENDPOINT="ws://db:8000")[0].uses_surrealdb
