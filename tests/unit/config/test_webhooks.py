"""The settings of webhooks: which secrets and addresses will do, and that none of them is shown."""

import pytest

from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings
from cefmp4.errors import SettingsError

SECRET = "sixteen and more characters"
IN_BASE64 = "whsec_c2l4dGVlbiBjaGFyYWN0ZXJz"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def load(monkeypatch: pytest.MonkeyPatch, **given: str) -> Settings:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings, warnings = load_settings(env_file=None)
    assert warnings == []
    return settings


def test_without_them_nothing_is_signed_or_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    assert (settings.webhook_secrets, settings.webhook_address) == ((), "")
    assert (settings.webhook_port, settings.webhook_max_queued) == (None, 10_000)


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        (SECRET, (SECRET,)),
        (f" {IN_BASE64} ,{SECRET},, ", (IN_BASE64, SECRET)),
        (IN_BASE64.rstrip("="), (IN_BASE64.rstrip("="),)),
        ("'quoted' and \"quoted\" it stays", ("'quoted' and \"quoted\" it stays",)),
    ],
)
def test_several_secrets(
    monkeypatch: pytest.MonkeyPatch, text: str, secrets: tuple[str, ...]
) -> None:
    settings = load(monkeypatch, WEBHOOK_SECRET=text)
    assert settings.webhook_secrets == secrets
    assert not any(secret in repr(settings) for secret in secrets)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hunter2", "16 characters"),
        (f"{SECRET},hunter2", "16 characters"),
        (",", "16 characters"),
        ("whsec_c2hvcnQ=", "as many bytes"),
        ("whsec_", "as many bytes"),
        ("whsec_this is no base64 at all", "base64"),
        ("whsec_c2l4dGVlbiBjaGFyYWN0ZXJzc", "base64"),
    ],
)
def test_a_secret_that_will_not_do_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^WEBHOOK_SECRET=\*\*\*: .*{why}") as caught:
        load(monkeypatch, WEBHOOK_SECRET=text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://hooks.example/in?token=hidden", "https://hooks.example"),
        ("http://me:hidden@127.0.0.1:9000/hidden", "http://127.0.0.1:9000"),
        ("http://a_container:80", "http://a_container:80"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_secret(
    monkeypatch: pytest.MonkeyPatch, url: str, place: str
) -> None:
    settings = load(monkeypatch, WEBHOOK_URL=url, WEBHOOK_SECRET=SECRET)
    assert (settings.webhook_address, settings.webhook_place) == (url, place)
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example", "ftp://hidden.example", "https://", "https://:hidden@/x", "http://a b/",
        "https://hidden.example:99999/", "https://hidden.example/#x", "https://hidd\u00e9n/",
        "http://[hidden/", "https://-/\t",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    with pytest.raises(SettingsError, match=r"^WEBHOOK_URL=\*\*\*: it") as caught:
        load(monkeypatch, WEBHOOK_URL=url, WEBHOOK_SECRET=SECRET)
    assert "hidden" not in str(caught.value)


def test_what_is_sent_must_be_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^WEBHOOK_SECRET is not set, .*WEBHOOK_URL"):
        load(monkeypatch, WEBHOOK_URL="http://127.0.0.1:9000")


def test_who_calls_back_needs_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not load(monkeypatch, HANDOVER_JOBS="none").has_jobs
    url = {"WEBHOOK_URL": "http://127.0.0.1:9000", "WEBHOOK_SECRET": SECRET}
    assert load(monkeypatch, HANDOVER_JOBS="none", **url).has_jobs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEBHOOK_PORT", "65536"),
        ("WEBHOOK_PORT", "-1"),
        ("WEBHOOK_PORT", "hook"),
        ("WEBHOOK_MAX_QUEUED", "0"),
    ],
)
def test_numbers_that_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}={value}: "):
        load(monkeypatch, **{name: value})
