"""What the doctor makes of the watched folder and the kernel's limits."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from cefmp4.config.ingest import WatchMode
from cefmp4.config.settings import Settings
from cefmp4.doctor.folder import examine_folder, judge_inotify
from cefmp4.model.diagnosis import Diagnosis, Level


def examined(folder: Path, **settings: object) -> dict[str, Diagnosis]:
    found = examine_folder(Settings(watch_dir=folder, **settings))  # type: ignore[arg-type]
    return {diagnosis.subject: diagnosis for diagnosis in found}


def test_an_ordinary_folder(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    found = examined(tmp_path)
    assert found["watched folder"].level is Level.OK
    assert Level.FAIL not in {diagnosis.level for diagnosis in found.values()}
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("name", ["missing", "file", "new\nline"])
def test_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    diagnosis = examined(tmp_path / name)["watched folder"]
    assert diagnosis.level is Level.FAIL
    assert diagnosis.detail.isprintable()
    assert diagnosis.advice


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_nobody_may_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert examined(tmp_path / "closed")["watched folder"].level is Level.FAIL


def test_leases_are_tried_on_a_real_file_and_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGIO)
    assert "no file" in examined(tmp_path)["read leases"].detail
    (tmp_path / "a.mp4").write_bytes(b"x")
    examined(tmp_path)
    with (tmp_path / "a.mp4").open("r+b") as file:  # a lease that was left would make this wait
        file.write(b"y")
    assert signal.getsignal(signal.SIGIO) == before


def test_a_file_that_is_being_written_is_no_fault(tmp_path: Path) -> None:
    with (tmp_path / "a.mp4").open("wb"):
        assert examined(tmp_path)["read leases"].level is Level.OK


def test_folders_beyond_the_limits_are_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    found = examined(tmp_path, watch_max_folders=2)["watched folder"]
    assert found.level is Level.WARN
    assert "2, as " in found.detail
    assert "WATCH_MAX_FOLDERS" in found.advice
    (tmp_path / ("d/" * 110)).mkdir(parents=True)
    assert "uploaded: 1, as d/d/" in examined(tmp_path)["watched folder"].detail


def test_moving_needs_a_place(tmp_path: Path) -> None:
    found = examined(tmp_path, after_upload=f"move:{tmp_path}/missing")
    assert found["AFTER_UPLOAD"].level is Level.FAIL
    (tmp_path / "done").mkdir()
    found = examined(tmp_path, after_upload=f"move:{tmp_path}/done")
    assert found["AFTER_UPLOAD"].level is Level.OK


def test_polling_needs_no_inotify(tmp_path: Path) -> None:
    assert "inotify" not in examined(tmp_path, watch_mode=WatchMode.POLLING)


LIMITS = {"max_user_watches": 8192, "max_queued_events": 16384, "max_user_instances": 128}


@pytest.mark.parametrize(
    ("changed", "folders", "level"),
    [
        ({}, 100, Level.OK),
        ({}, 5000, Level.WARN),
        ({}, 8192, Level.FAIL),
        ({"max_queued_events": 512}, 1, Level.WARN),
        ({"max_user_instances": 4}, 1, Level.WARN),
    ],
)
def test_inotify_limits(changed: dict[str, int], folders: int, level: Level) -> None:
    (diagnosis,) = judge_inotify(LIMITS | changed, folders)
    assert diagnosis.level is level
    assert bool(diagnosis.advice) is (level is not Level.OK)


def test_a_kernel_that_tells_no_limits() -> None:
    assert judge_inotify({}, 10**6)[0].level is Level.OK


MIB = 1024**2


@pytest.mark.parametrize(
    ("server", "free", "level"),
    [
        (None, 64 * MIB, Level.OK),  # the /tmp of a container
        (None, 8 * MIB, Level.WARN),
        ("s3", 64 * MIB, Level.WARN),
    ],
)
def test_a_small_disk_of_the_state_folder_matters_where_servers_store_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str | None, free: int, level: Level
) -> None:
    if server:
        (tmp_path / "state" / server).mkdir(parents=True)
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr("cefmp4.doctor.folder.shutil.disk_usage", lambda _: usage)
    found = examined(tmp_path, state_dir=tmp_path / "state", work_reserve_bytes=16 * MIB)
    assert found["disk of the state folder"].level is level
    assert found["disk of the watched folder"].level is Level.WARN
