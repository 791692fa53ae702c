"""Tests of cefmp4.embedded.state."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cefmp4.embedded import state
from cefmp4.embedded.sockets import port_of
from cefmp4.embedded.state import Connection, StateFolder, load_connection, new_credentials
from cefmp4.errors import SettingsError

CONNECTION = Connection(
    redis_url=None,
    s3_endpoint_url=None,
    s3_access_key_id="cefmp4:abc",
    s3_secret_access_key="hush",
    s3_region_name="us-east-1",
    bucket="films",
    pid=os.getpid(),
)


async def test_others_read_the_connection_only_while_the_folder_is_owned(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    assert load_connection(folder.path) is None
    await folder.open()
    assert load_connection(folder.path) is None
    folder.publish(CONNECTION)
    assert load_connection(folder.path) == CONNECTION
    folder.close()
    assert load_connection(folder.path) is None  # the file of an owner that was killed
    await folder.open()
    folder.unpublish()
    assert load_connection(folder.path) is None
    folder.close()


async def test_a_dead_process_id_is_no_owner(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    await folder.open()
    folder.publish(replace(CONNECTION, pid=2**22 + 1))  # above what Linux gives out
    assert load_connection(tmp_path) is None
    folder.close()


async def test_a_folder_whose_owner_does_not_show_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_LOCK_PATIENCE_SECONDS", 0.1)
    first, second = StateFolder(tmp_path), StateFolder(tmp_path)
    await first.open()
    with pytest.raises(SettingsError, match="in use by a server"):
        await second.open()
    first.close()
    await second.open()
    second.close()


async def test_credentials_are_made_once_and_private(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    made = folder.credentials()
    assert folder.credentials() == made
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert new_credentials() != made
    assert made.s3_secret_access_key not in repr(made)
    assert made.redis_password not in repr(made)
    assert "hush" not in repr(CONNECTION)


def test_unreadable_credentials_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(SettingsError, match="delete it to get new ones"):
        StateFolder(tmp_path).credentials()


def test_a_port_is_kept_until_somebody_has_it(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    with folder.listen("s3") as listener:
        port = port_of(listener)
    with folder.listen("s3") as listener:
        assert port_of(listener) == port
        with folder.listen("s3") as other:  # as of another program
            assert port_of(other) != port


@pytest.mark.parametrize("text", ["[1", "[1]", "{}", '{"s3": "80"}', '{"s3": 70000}'])
def test_a_torn_ports_file_only_costs_the_former_ports(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    with StateFolder(tmp_path).listen("s3") as listener:
        assert port_of(listener) > 0


def test_a_folder_of_somebody_elses_files_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "film.mp4").touch()
    folder = StateFolder(tmp_path)
    asyncio.run(folder.open())
    folder.close()
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("taken", ["lock", "credentials.json.new"])
async def test_a_folder_that_cannot_be_written_is_named(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).mkdir()
    with pytest.raises(SettingsError, match=r"STATE_DIR.*: Is a directory"):
        await _credentials_in(StateFolder(tmp_path))


async def _credentials_in(folder: StateFolder) -> None:
    await folder.open()
    try:
        folder.credentials()
    finally:
        folder.close()
