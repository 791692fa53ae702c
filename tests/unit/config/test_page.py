"""Where people find the page."""

import pytest

from cefmp4.config.page import PageSettings


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/"),
        ("0.0.0.0", "http://127.0.0.1:8000/"),
        ("::", "http://127.0.0.1:8000/"),
        ("", "http://127.0.0.1:8000/"),
        ("::1", "http://[::1]:8000/"),
        ("[::1]", "http://[::1]:8000/"),
        ("recorder.lan", "http://recorder.lan:8000/"),
        ("192.0.2.7", "http://192.0.2.7:8000/"),
    ],
)
def test_the_page(host: str, url: str) -> None:
    settings = PageSettings(http_host=host, prom_port=8000)
    assert settings.page_url == url
    assert settings.watch_url("s1") == f"{url}watch/s1"


def test_a_port_that_nobody_knows() -> None:
    assert PageSettings(prom_port=0).watch_url("s1") is None
