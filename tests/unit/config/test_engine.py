"""How Temporal is reached: what the settings take, and what of them is never shown."""

from pathlib import Path

import pytest

from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings
from cefmp4.errors import SettingsError

KEY = "sixteen-characters-or-more"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def load() -> Settings:
    return load_settings(env_file=None)[0]


def test_nothing_is_needed_for_the_embedded_one() -> None:
    settings = load()
    assert settings.temporal_address is None
    assert settings.temporal_namespace == "default"
    assert not settings.speaks_tls
    with pytest.raises(SettingsError, match=r"TEMPORAL_ADDRESS is not set.*HANDOVER_JOBS=none"):
        _ = settings.needed_temporal_address


@pytest.mark.parametrize(
    "address", ["temporal.lan:7233", "127.0.0.1:7233", "[::1]:7233", "localhost:65535"]
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", address)
    assert load().needed_temporal_address == address


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TEMPORAL_ADDRESS", "temporal.lan", "a host and a port"),
        ("TEMPORAL_ADDRESS", "temporal.lan:0", "a host and a port"),
        ("TEMPORAL_ADDRESS", "temporal.lan:65536", "a host and a port"),
        ("TEMPORAL_ADDRESS", ":7233", "a host and a port"),
        ("TEMPORAL_ADDRESS", "http://temporal.lan:7233", "a host and a port"),
        ("TEMPORAL_CODEC_KEY", "too-short", "16 characters"),
        ("TEMPORAL_TLS", "perhaps", ""),
        ("TEMPORAL_UI", "perhaps", ""),
        ("TEMPORAL_TLS_CLIENT_CERT_PATH", "us.pem", "TEMPORAL_TLS_CLIENT_KEY_PATH go together"),
        ("TEMPORAL_TLS_CLIENT_KEY_PATH", "us.key", "TEMPORAL_TLS_CLIENT_KEY_PATH go together"),
    ],
)
def test_bad_values_name_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert name in str(caught.value)
    assert told in str(caught.value)
    if name == "TEMPORAL_CODEC_KEY":
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TEMPORAL_TLS", "true"),
        ("TEMPORAL_API_KEY", KEY),
        ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", "ca.pem"),
        ("TEMPORAL_TLS_SERVER_NAME", "temporal.lan"),
    ],
)
def test_a_key_is_sent_over_tls_only(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert load().speaks_tls


def test_paths_below_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", "~/ca.pem")
    assert load().temporal_tls_server_ca_cert_path == tmp_path / "ca.pem"


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEMPORAL_API_KEY", "TEMPORAL_CODEC_KEY"):
        monkeypatch.setenv(name, KEY)
    settings = load()
    assert KEY not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert settings.temporal_codec_key
    assert settings.temporal_codec_key.get_secret_value() == KEY
