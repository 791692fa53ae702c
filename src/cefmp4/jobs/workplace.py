"""Folders that attempts may use. Each worker holds a lock on its own, which the kernel lets go when
the worker dies: what a dead worker left behind is found by that, and removed."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from cefmp4.errors import SettingsError, TransientError
from cefmp4.model.part import MIB
from cefmp4.trust import check_trusted

log = structlog.get_logger()

_PREFIX = "worker-"
_NEW = ".new-"  # made, but not locked yet
_NEW_S = 60.0  # one that is so for longer has lost its worker


class NoRoomError(TransientError):
    """The disk has no room for what the job may write."""


class Workplace:
    """Of one worker; `folder` is there while the context of `open_workplace` is. `reserve_bytes`
    stay free on its disk: with `cefmp4 up` the embedded servers lie there, too."""

    def __init__(self, folder: Path, *, reserve_bytes: int = 0) -> None:
        self.folder = folder
        self._reserve_bytes = reserve_bytes

    def check_room(self, job_bytes: int) -> None:
        """Raises NoRoomError where an attempt that writes so much would touch the reserve. What
        workers of this host that died meanwhile left goes first."""
        sweep(self.folder.parent)
        disk = os.statvfs(self.folder)
        free, needed = disk.f_bavail * disk.f_frsize, job_bytes + self._reserve_bytes
        if free < needed:
            raise NoRoomError(
                f"{self.folder.parent} has {free // MIB} MiB free, and {needed // MIB} MiB must be",
                hint="make room, give STATE_DIR a larger disk, or lower WORK_RESERVE_BYTES",
            )

    @contextmanager
    def attempt(self, name: str) -> Iterator[Path]:
        """A new empty folder that is gone afterwards, whatever happens."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        try:
            yield folder
        finally:
            _remove(folder)


@contextmanager
def open_workplace(root: Path, *, reserve_bytes: int = 0) -> Iterator[Workplace]:
    """Raises SettingsError where no job could ever begin there."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A worker keeps nothing there for another start, so it does not matter who could swap it.
    check_trusted(root, "STATE_DIR", also_parents=False)
    disk = os.statvfs(root)
    if disk.f_blocks * disk.f_frsize <= reserve_bytes:
        raise SettingsError(
            f"WORK_RESERVE_BYTES={reserve_bytes}: the whole disk of {root} has "
            f"{disk.f_blocks * disk.f_frsize} bytes"
        )
    sweep(root)
    new = Path(tempfile.mkdtemp(prefix=_NEW, dir=root))
    lock = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = new.rename(root / (_PREFIX + new.name.removeprefix(_NEW)))
        try:
            yield Workplace(folder, reserve_bytes=reserve_bytes)
        finally:
            _remove(folder)
    finally:
        os.close(lock)


def sweep(root: Path) -> list[Path]:
    """Removes the folders of workers that are dead; returns what it removed."""
    removed = []
    for folder in [*root.glob(f"{_PREFIX}*"), *_abandoned(root)]:
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # its worker removed it just now
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
            removed.append(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
    if removed:
        log.info("work folders of dead workers removed", count=len(removed))
    return removed


def _abandoned(root: Path) -> list[Path]:
    """Their workers died before they held the lock that tells."""
    found = []
    for folder in root.glob(f"{_NEW}*"):
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _NEW_S:
                found.append(folder)
    return found


def _remove(folder: Path) -> None:
    """A child that was just killed may still hold a file open; that does not keep it here."""

    def complain(_call: object, path: str, error: object) -> None:
        log.warning("a work folder is not empty", folder=path, reason=str(error))

    shutil.rmtree(folder, onerror=complain)
