"""A file of random bytes, of which tests send ranges."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE_BYTES = 10 * 1024 * 1024


@pytest.fixture(scope="session")
def data() -> bytes:
    return os.urandom(FILE_BYTES)


@pytest.fixture
def fd(tmp_path: Path, data: bytes) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(data)
    number = os.open(path, os.O_RDWR)
    yield number
    os.close(number)
