"""Tests of cefmp4.embedded.state."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.support.ports import free_port

from cefmp4.config.settings import Settings
from cefmp4.embedded import state
from cefmp4.embedded.sockets import port_of
from cefmp4.embedded.state import (
    Connection,
    credentials_in,
    listen_for,
    load_connection,
    new_credentials,
    own,
    published,
)
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
    folder = tmp_path / "state"
    assert load_connection(folder) is None
    async with own(folder):
        assert load_connection(folder) is None
        with published(folder, CONNECTION):
            assert load_connection(folder) == CONNECTION
        assert load_connection(folder) is None
    with published(folder, CONNECTION):  # as an owner that was killed left it
        assert load_connection(folder) is None


async def test_between_two_lives_of_temporal_its_address_stays_known(tmp_path: Path) -> None:
    beside = replace(CONNECTION, temporal_address=f"127.0.0.1:{free_port()}")
    async with own(tmp_path):
        with published(tmp_path, beside):
            assert load_connection(tmp_path) == beside


def test_our_temporal_is_not_reached_as_another_would_be() -> None:
    ours = replace(CONNECTION, temporal_address="127.0.0.1:7233", temporal_codec_key="k" * 16)
    settings = Settings(temporal_api_key=SecretStr("of another"), temporal_namespace="films")
    completed = ours.completing(settings)
    assert not completed.speaks_tls
    assert completed.temporal_namespace == "default"
    theirs = settings.model_copy(update={"temporal_address": "temporal.example:7233"})
    assert ours.completing(theirs) == theirs


async def test_a_dead_process_id_is_no_owner(tmp_path: Path) -> None:
    dead = replace(CONNECTION, pid=2**22 + 1)  # above what Linux gives out
    async with own(tmp_path):
        with published(tmp_path, dead):
            assert load_connection(tmp_path) is None


async def test_a_folder_whose_owner_does_not_show_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_LOCK_PATIENCE_SECONDS", 0.1)
    async with own(tmp_path):
        with pytest.raises(SettingsError, match="in use by a server"):
            await own(tmp_path).__aenter__()
    async with own(tmp_path):
        pass


async def test_credentials_are_made_once_and_private(tmp_path: Path) -> None:
    made = credentials_in(tmp_path)
    assert credentials_in(tmp_path) == made
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert new_credentials() != made
    assert made.s3_secret_access_key not in repr(made)
    assert made.redis_password not in repr(made)
    assert "hush" not in repr(CONNECTION)


def test_unreadable_credentials_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(SettingsError, match="delete it to get new ones"):
        credentials_in(tmp_path)


def test_a_port_is_kept_until_somebody_has_it(tmp_path: Path) -> None:
    with listen_for(tmp_path, "s3") as listener:
        port = port_of(listener)
    with listen_for(tmp_path, "s3") as listener:
        assert port_of(listener) == port
        with listen_for(tmp_path, "s3") as other:  # as of another program
            assert port_of(other) != port


@pytest.mark.parametrize("text", ["[1", "[1]", "1", "{}", '{"s3": "80"}', '{"s3": 70000}'])
def test_a_torn_ports_file_only_costs_the_former_port(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    with listen_for(tmp_path, "s3") as listener:
        assert port_of(listener) > 0


def test_a_folder_of_somebody_elses_files_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "film.mp4").touch()

    async def use() -> None:
        async with own(tmp_path):
            pass

    asyncio.run(use())
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("taken", ["lock", "credentials.json.new"])
async def test_a_folder_that_cannot_be_written_is_named(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).mkdir()
    with pytest.raises(SettingsError, match=r"STATE_DIR.*: Is a directory"):
        async with own(tmp_path):
            credentials_in(tmp_path)
