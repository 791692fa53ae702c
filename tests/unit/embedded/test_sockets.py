"""Tests of cefmp4.embedded.sockets."""

import os
import socket
import sys
from pathlib import Path

import pytest

from cefmp4.embedded.sockets import (
    REDIS_SOCKET,
    is_peer,
    listen_on_loopback,
    port_of,
    redis_socket,
    users_listening_on,
)
from cefmp4.errors import SettingsError

DEEP = "x" * 120


def test_a_port_belongs_to_who_listens_on_loopback() -> None:
    with listen_on_loopback() as listener:
        port = port_of(listener)
        assert users_listening_on(port) == {os.geteuid()}
        with pytest.raises(OSError, match="in use"):
            listen_on_loopback(port)
    assert users_listening_on(port) == set()


def test_a_port_of_all_addresses_is_another() -> None:
    with socket.create_server(("", 0)) as wide:
        assert users_listening_on(port_of(wide)) == set()


def test_the_folder_of_the_socket_is_closed(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir(0o755)
    assert redis_socket(tmp_path) == tmp_path / REDIS_SOCKET
    assert (tmp_path / "redis").stat().st_mode & 0o777 == 0o700


def test_a_deep_folder_gets_a_short_name(tmp_path: Path) -> None:
    path = redis_socket(tmp_path / DEEP)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(os.fspath(path))
        server.listen()
        assert (tmp_path / DEEP / REDIS_SOCKET).is_socket()
        client.connect(os.fspath(path))
        assert is_peer(client, os.getpid())
        assert not is_peer(client, os.getppid())


def test_a_deep_folder_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SettingsError, match=r"STATE_DIR: .*choose a folder with a shorter path"):
        redis_socket(tmp_path / DEEP)
