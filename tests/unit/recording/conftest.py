"""A recording whose leases the kernel can grant, and a descriptor of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.rig import hashing, rig

from cefmp4.recording.mounts import fs_type_of_path, has_hidden_writers

__all__ = ["hashing", "rig"]  # fixtures


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    if has_hidden_writers(fs_type_of_path(tmp_path)):
        pytest.skip("2026-11: the folder for temporary files is on an overlay or FUSE")
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x" * 4096)
    return path


@pytest.fixture
def fd(recording: Path) -> Iterator[int]:
    number = os.open(recording, os.O_RDONLY)
    yield number
    os.close(number)
