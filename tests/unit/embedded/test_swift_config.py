"""Tests of cefmp4.embedded.swift_config."""

from configparser import RawConfigParser

import pytest

from cefmp4.embedded.swift_config import backend_conf, proxy_conf


def proxy(region: str = "us-east-1") -> str:
    keys = {"s3_access_key_id": "cefmp4:abc", "s3_secret_access_key": "s-e_c"}
    return proxy_conf(keys, region=region, min_part_bytes=7)


def parsed(text: str) -> RawConfigParser:
    parser = RawConfigParser()
    parser.read_string(text)
    return parser


def test_every_filter_of_the_pipeline_is_described() -> None:
    conf = parsed(proxy())
    *filters, app = conf["pipeline:main"]["pipeline"].split()
    assert app == "proxy-server"
    assert [name for name in filters if f"filter:{name}" not in conf] == []


def test_the_access_key_is_a_user_of_the_account_that_holds_the_data() -> None:
    assert parsed(proxy())["filter:tempauth"]["user_cefmp4_abc"] == "s-e_c .admin"


def test_ten_thousand_parts_are_allowed() -> None:
    conf = parsed(proxy())
    assert conf["filter:s3api"]["max_upload_part_num"] == "10000"
    assert conf["filter:s3api"]["min_segment_size"] == "7"
    assert conf["filter:slo"]["max_manifest_segments"] == "10000"


def test_backends_know_nothing_secret() -> None:
    assert "s-e_c" not in "".join(backend_conf(kind) for kind in ("account", "container", "object"))


@pytest.mark.parametrize("region", ["a\nb", "a\rb", "%(here)s"])
def test_a_setting_cannot_smuggle_another(region: str) -> None:
    with pytest.raises(ValueError, match="Swift setting"):
        proxy(region)
