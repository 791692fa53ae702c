"""What is refused before anything is uploaded."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cefmp4.errors import SettingsError
from cefmp4.ingest.after.local_file import archive_below, check_after_upload

READ_ONLY = """\
import pathlib, sys
from cefmp4.ingest.after.local_file import check_after_upload
check_after_upload("keep", pathlib.Path(sys.argv[1]))
check_after_upload(sys.argv[2], pathlib.Path(sys.argv[1]))
"""


@pytest.mark.parametrize("action", ["delete", "move:{folder}/done"])
def test_a_folder_that_is_mounted_read_only(tmp_path: Path, action: str) -> None:
    unshare = shutil.which("unshare")
    mounts = 'mount -t tmpfs -o ro none "$1" && exec "$0" -c "$2" "$1" "$3"'
    words = [str(tmp_path), READ_ONLY, action.format(folder=tmp_path)]
    alone = [str(unshare), "-m", "sh", "-c"]
    if not unshare or subprocess.run([*alone, mounts.partition("&&")[0], "", *words]).returncode:
        pytest.skip("nothing can be mounted here")
    done = subprocess.run([*alone, mounts, sys.executable, *words], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"AFTER_UPLOAD={words[2]}: WATCH_DIR={tmp_path} is mounted read-only" in done.stderr


def test_a_goal_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"^AFTER_UPLOAD=move:.*: Not a directory"):
        check_after_upload(f"move:{tmp_path}/file/done", tmp_path / "watched")


def test_the_goal_is_made(tmp_path: Path) -> None:
    check_after_upload(f"move:{tmp_path}/done/today", tmp_path / "watched")
    assert (tmp_path / "done/today").is_dir()
    check_after_upload("delete", tmp_path)


def test_the_watched_folder_is_no_goal(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="that is WATCH_DIR itself"):
        check_after_upload(f"move:{tmp_path}/link", tmp_path)


@pytest.mark.parametrize(
    ("goal", "below"),
    [
        ("watched/done", "done"),
        ("link", "done"),
        ("other/../watched/a/b", "a/b"),
        ("watched-done", ""),
        ("watched", ""),
    ],
)
def test_where_the_goal_lies_in_the_watched_folder(tmp_path: Path, goal: str, below: str) -> None:
    watched = tmp_path / "watched"
    (watched / "done").mkdir(parents=True)
    (tmp_path / "link").symlink_to(watched / "done")
    assert archive_below(f"move:{tmp_path / goal}", watched) == below
    assert archive_below("delete", watched) == ""
