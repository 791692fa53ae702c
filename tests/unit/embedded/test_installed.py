"""Tests of cefmp4.embedded.installed."""

import errno
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from cefmp4.embedded.installed import check_folder_fits_s3, check_servers_available
from cefmp4.errors import SettingsError


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(("want", "setting"), [("redis", "REDIS_URL"), ("s3", "S3_ENDPOINT_URL")])
def test_says_what_to_install_or_to_set(want: str, setting: str) -> None:
    with pytest.raises(SettingsError, match=rf"(?s)pip install 'cefmp4\[embedded\]'.*{setting}"):
        check_servers_available(want_redis=want == "redis", want_s3=want == "s3")


@pytest.mark.usefixtures("nothing_installed")
def test_what_is_not_wanted_need_not_be_there() -> None:
    check_servers_available(want_redis=False, want_s3=False)


def test_the_s3_server_is_for_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SettingsError, match="Linux only"):
        check_servers_available(want_redis=True, want_s3=True)


def test_a_file_system_without_extended_attributes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    check_folder_fits_s3(tmp_path)
    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(SettingsError, match=r"STATE_DIR=.*extended attributes"):
        check_folder_fits_s3(tmp_path)
    assert list(tmp_path.iterdir()) == []
