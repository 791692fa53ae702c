"""Tests of cefmp4.embedded.swift_config."""

from configparser import RawConfigParser
from pathlib import Path

import pytest

from cefmp4.embedded.swift_config import SwiftOptions, backend_conf, proxy_conf


def options(**changed: object) -> SwiftOptions:
    given: dict[str, object] = {
        "data": Path("/data"),
        "listener": 1,
        "access_key": "cefmp4:abc",
        "secret_key": "s-e_c",
    }
    return SwiftOptions(**{**given, **changed})  # type: ignore[arg-type]  # mixed on purpose


def parsed(text: str) -> RawConfigParser:
    parser = RawConfigParser()
    parser.read_string(text)
    return parser


def test_every_filter_of_the_pipeline_is_described() -> None:
    conf = parsed(proxy_conf(options()))
    *filters, app = conf["pipeline:main"]["pipeline"].split()
    assert app == "proxy-server"
    assert [name for name in filters if f"filter:{name}" not in conf] == []


def test_the_access_key_is_a_user_of_the_account_that_holds_the_data() -> None:
    assert parsed(proxy_conf(options()))["filter:tempauth"]["user_cefmp4_abc"] == "s-e_c .admin"


def test_ten_thousand_parts_are_allowed() -> None:
    conf = parsed(proxy_conf(options(min_part_bytes=7)))
    assert conf["filter:s3api"]["max_upload_part_num"] == "10000"
    assert conf["filter:s3api"]["min_segment_size"] == "7"
    assert conf["filter:slo"]["max_manifest_segments"] == "10000"


def test_backends_know_nothing_secret() -> None:
    assert "s-e_c" not in "".join(backend_conf(kind) for kind in ("account", "container", "object"))
    assert "s-e_c" not in repr(options())


@pytest.mark.parametrize("region", ["a\nb", "a\rb", "%(here)s"])
def test_a_setting_cannot_smuggle_another(region: str) -> None:
    with pytest.raises(ValueError, match="Swift setting"):
        proxy_conf(options(region=region))
