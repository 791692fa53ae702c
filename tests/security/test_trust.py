"""Another user of the machine who prepares what the service is about to believe: `.env` where it is
started, or the folder of its state."""

import asyncio
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.other_user import OTHER_UID, folder_for_all, needs_two_users
from tests.support.terminal import cefmp4

from cefmp4.__main__ import main
from cefmp4.commands.command_line import COMMANDS
from cefmp4.config.reading import is_production, load_settings
from cefmp4.embedded.state import credentials_in, load_connection, own
from cefmp4.errors import SettingsError
from cefmp4.jobs.workplace import open_workplace
from cefmp4.trust import check_trusted

pytestmark = needs_two_users
DAEMON = pwd.getpwuid(1)  # a user who has a group of the same name, on every Linux


@pytest.fixture
def home() -> Iterator[Path]:
    """In /tmp, as the folders of others are, too."""
    with folder_for_all() as folder:
        yield folder


def env_file(home: Path) -> Path:
    file = home / ".env"
    file.write_text("S3_BUCKET_NAME=theirs\nAPP_ENV=production\n")
    file.chmod(0o644)
    return file


def give(path: Path, uid: int = OTHER_UID) -> None:
    os.chown(path, uid, -1, follow_symlinks=False)


def written_by_another(home: Path) -> None:
    give(env_file(home))


def writable_by_all(home: Path) -> None:
    env_file(home).chmod(0o646)


def writable_by_a_group(home: Path) -> None:
    file = env_file(home)
    os.chown(file, 0, 100)
    file.chmod(0o664)


def in_a_folder_for_all(home: Path) -> None:
    env_file(home)
    home.chmod(0o777)


def in_a_folder_of_another(home: Path) -> None:
    env_file(home)
    give(home)


def a_link_of_another(home: Path) -> None:
    env_file(home).rename(home / "ours")
    (home / ".env").symlink_to("ours")
    give(home / ".env")


def a_link_to_what_is_of_another(home: Path) -> None:
    give(env_file(home).rename(home / "theirs"))
    (home / ".env").symlink_to("theirs")


def a_link_through_a_folder_of_another(home: Path) -> None:
    (home / "theirs").mkdir()
    env_file(home).rename(home / "theirs" / "ours")
    give(home / "theirs")
    (home / ".env").symlink_to(home / "theirs" / "ours")


TRAPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "it was written by another": (written_by_another, "/.env belongs to .* \\(chown root .*/.env,"),
    "all may write to it": (writable_by_all, "/.env can be .* \\(chmod o-w .*/.env\\)"),
    "a group may write to it": (writable_by_a_group, "group users \\(chmod g-w .*/.env\\)"),
    "all may replace it": (in_a_folder_for_all, "can be changed by every user \\(chmod o-w /"),
    "another may replace it": (in_a_folder_of_another, "user nobody \\(run this as that user"),
    "it is a link of another": (a_link_of_another, "\\(chown -h root .*/.env,"),
    "it is a link to theirs": (a_link_to_what_is_of_another, "/theirs belongs to the user "),
    "it leads through theirs": (a_link_through_a_folder_of_another, "/theirs belongs to the user "),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_an_env_file_that_another_user_can_change_is_not_read(trap: str, home: Path) -> None:
    prepare, reason = TRAPS[trap]
    prepare(home)
    with pytest.raises(SettingsError, match=rf"\.env is not trusted: .*{reason}"):
        load_settings(home / ".env")
    assert not is_production(home / ".env")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_an_env_file_of_ours_is_read(mode: int, home: Path) -> None:
    env_file(home).chmod(mode)
    assert load_settings(home / ".env")[0].s3_bucket_name == "theirs"
    (home / ".env").rename(home / "settings")
    (home / ".env").symlink_to("../" + home.name + "/settings")
    assert load_settings(home / ".env")[0].s3_bucket_name == "theirs"


WORDS = {"streams": ["ls"], "jobs": ["ls"], "download": ["key"], "upload": ["file"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_with_2_and_the_reason(
    command: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written_by_another(home)
    monkeypatch.chdir(home)
    code = main([command, *WORDS.get(command, [])])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert said.err.startswith(f"error: .env is not trusted: {home}/.env belongs to the user ")


async def test_a_state_folder_of_another_user_is_not_used(home: Path) -> None:
    state = home / "state"
    await asyncio.to_thread(state.mkdir, 0o755)
    content = '{"redis_url": "redis://theirs"}'
    await asyncio.to_thread((state / "connection.json").write_text, content)
    give(state)
    answer = await cefmp4(home, "up", STATE_DIR=str(state))
    assert answer.code == 2, answer
    assert answer.lines[-1].startswith(f"error: STATE_DIR is not trusted: {state} belongs to ")
    assert os.listdir(state) == ["connection.json"]
    with pytest.raises(SettingsError, match="STATE_DIR is not trusted"):
        load_connection(state)
    with pytest.raises(SettingsError, match="STATE_DIR is not trusted"), open_workplace(state):
        pass


@pytest.mark.parametrize("name", ["credentials.json", "redis", "s3"])
async def test_what_another_user_left_in_a_state_folder_is_not_used(name: str, home: Path) -> None:
    state = home / "state"
    async with own(state):
        await asyncio.to_thread((state / name).mkdir)
    give(state / name)
    with pytest.raises(SettingsError, match=f"{state / name} belongs to the user"):
        await own(state).__aenter__()


async def test_a_state_folder_that_all_may_write_to_is_not_used(home: Path) -> None:
    """Nor made ours by closing it: what lies in it may be anybody's."""
    state = home / "state"
    async with own(state):
        credentials_in(state)
    os.chmod(state, 0o777)
    with pytest.raises(SettingsError, match=f"by every user .chmod o-w {state}"):
        await own(state).__aenter__()
    os.chmod(state, 0o700)
    async with own(state):
        pass


async def test_a_state_folder_that_all_may_swap_is_not_used(home: Path) -> None:
    os.chmod(home, 0o777)
    with pytest.raises(SettingsError, match=f"{home} can be changed by every user"):
        await own(home / "state").__aenter__()
    assert os.listdir(home / "state") == []


# What a normal user has.


@pytest.fixture
def as_daemon(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """A file of a user who lets the group of the same name write, as Debian's umask 002 does."""
    monkeypatch.setattr(os, "geteuid", lambda: DAEMON.pw_uid)
    file = env_file(home)
    for path in (home, file):
        os.chown(path, DAEMON.pw_uid, DAEMON.pw_gid)
    home.chmod(0o775)
    file.chmod(0o664)
    return file


def test_the_group_of_the_same_name_is_the_user(as_daemon: Path) -> None:
    check_trusted(as_daemon, ".env")


def test_a_group_of_another_name_is_others(as_daemon: Path) -> None:
    os.chown(as_daemon, -1, 100)
    with pytest.raises(SettingsError, match="can be changed by the group users"):
        check_trusted(as_daemon, ".env")


def test_a_list_of_further_users_is_others(
    as_daemon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getxattr", lambda _path, _name: b"an ACL")
    with pytest.raises(SettingsError, match="can be changed by the group"):
        check_trusted(as_daemon, ".env")


def test_what_is_of_root_is_trusted(as_daemon: Path) -> None:
    os.chown(as_daemon, 0, 0)
    as_daemon.chmod(0o640)
    check_trusted(as_daemon, ".env")


def test_in_a_sandbox_the_folders_outside_are_nobodys(
    as_daemon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = int(Path("/proc/sys/kernel/overflowuid").read_text())
    os.chown(as_daemon.parent, nobody, -1)
    as_daemon.parent.chmod(0o755)
    with pytest.raises(SettingsError, match="belongs to"):
        check_trusted(as_daemon, ".env")
    sandbox = as_daemon.parent / "uid_map"
    sandbox.write_text(f"         {DAEMON.pw_uid}       1000          1\n")
    monkeypatch.setattr("cefmp4.trust._UID_MAP", sandbox)
    check_trusted(as_daemon, ".env")
    as_daemon.parent.chmod(0o757)
    with pytest.raises(SettingsError, match="can be changed by every user"):
        check_trusted(as_daemon, ".env")


def test_links_in_a_circle_are_no_files(home: Path) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    check_trusted(home / "a", ".env")
    assert load_settings(home / "a")[1] == []
