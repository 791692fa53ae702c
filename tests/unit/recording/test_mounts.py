import os
from pathlib import Path

import pytest

from cefmp4.config.ingest import WatchMode
from cefmp4.recording.mounts import (
    fs_type_of_fd,
    fs_type_of_path,
    has_hidden_writers,
    is_remote,
    parse_mounts,
)
from cefmp4.watch.watcher import choose_mode

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /mnt/with\\040space rw - nfs4 server:/x rw
31 22 0:26 / /mnt/dash rw,relatime master:1 shared:2 - fuse.sshfs me@there:/ rw
broken line
"""


def test_mount_ids_are_read_with_any_number_of_optional_fields() -> None:
    assert parse_mounts(MOUNTINFO) == {
        22: ("ext4", "/dev/vda /"),
        30: ("nfs4", "server:/x /"),
        31: ("fuse.sshfs", "me@there:/ /"),
    }


@pytest.mark.parametrize("fs_type", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "virtiofs"])
def test_file_systems_that_others_change_are_remote(fs_type: str) -> None:
    assert is_remote(fs_type)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", ""])
def test_local_file_systems_have_events(fs_type: str) -> None:
    assert not is_remote(fs_type)


def test_writers_below_fuse_and_overlay_are_hidden() -> None:
    assert has_hidden_writers("fuse.bindfs")
    assert has_hidden_writers("fuseblk")
    assert has_hidden_writers("overlay")
    assert not has_hidden_writers("ext4")


def test_the_file_system_of_a_path_is_that_of_its_descriptor() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        assert fs_type_of_fd(fd) == fs_type_of_path(Path("/proc")) == "proc"
    finally:
        os.close(fd)


def test_a_chosen_mode_is_not_questioned(tmp_path: Path) -> None:
    assert choose_mode(tmp_path, WatchMode.POLLING) is WatchMode.POLLING
    assert choose_mode(tmp_path, WatchMode.EVENTS) is WatchMode.EVENTS
    assert choose_mode(tmp_path, WatchMode.AUTO) is not WatchMode.AUTO
