"""Where people find the page."""

import pytest

from cefmp4.web.address import page_url, watch_url


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
    assert page_url(host, 8000) == url
    assert watch_url(host, 8000, "s1") == f"{url}watch/s1"


def test_a_port_that_nobody_knows() -> None:
    assert watch_url("127.0.0.1", 0, "s1") is None
