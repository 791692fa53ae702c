import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cefmp4.errors import SettingsError
from cefmp4.jobs.workplace import NoRoomError, open_workplace, sweep

_HOLDER = """
import sys, time
from pathlib import Path
from cefmp4.jobs.workplace import open_workplace
with open_workplace(Path(sys.argv[1])) as workplace, workplace.attempt("hls-1") as folder:
    (folder / "left").write_bytes(b"x")
    print("there", flush=True)
    time.sleep(60)
"""


def test_an_attempts_folder_is_gone_whatever_happens(tmp_path: Path) -> None:
    with open_workplace(tmp_path) as workplace:
        with suppress(ZeroDivisionError), workplace.attempt("hls-1") as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "file").write_bytes(b"x")
            raise ZeroDivisionError
        assert not folder.exists()
        assert list(workplace.folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_its_folder_is_its_users_alone_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_workplace(tmp_path / "work"):
            assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_only_the_folders_of_dead_workers_are_swept(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"there\n"
        assert sweep(tmp_path) == []
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert len(list(tmp_path.glob("worker-*/*/left"))) == 1
    with open_workplace(tmp_path) as workplace:
        assert list(tmp_path.iterdir()) == [workplace.folder]


def test_who_lives_on_clears_away_what_the_dead_left(tmp_path: Path) -> None:
    with open_workplace(tmp_path) as workplace:
        dead = tmp_path / "worker-dead"
        (dead / "a1").mkdir(parents=True)
        workplace.check_room(0)
        assert list(tmp_path.iterdir()) == [workplace.folder]


def test_a_folder_whose_worker_died_before_it_was_locked_goes_later(tmp_path: Path) -> None:
    old, new = tmp_path / ".new-old", tmp_path / ".new-new"
    old.mkdir()
    new.mkdir()
    os.utime(old, (0, 0))
    assert sweep(tmp_path) == [old]
    assert list(tmp_path.iterdir()) == [new]


def test_room_is_what_is_free_without_the_reserve(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    half = disk.f_bavail * disk.f_frsize // 2
    with open_workplace(tmp_path, reserve_bytes=half) as workplace:
        workplace.check_room(half // 2)
        with pytest.raises(NoRoomError, match="WORK_RESERVE_BYTES") as refusal:
            workplace.check_room(2 * half)
        assert str(tmp_path) in str(refusal.value)


def test_a_reserve_that_no_room_is_enough_for_is_said_at_once(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    whole = disk.f_blocks * disk.f_frsize
    with (
        pytest.raises(SettingsError, match="WORK_RESERVE_BYTES"),
        open_workplace(tmp_path, reserve_bytes=whole),
    ):
        pass
