"""Folders that attempts may use. Each worker holds a lock on its own, which the kernel lets go when
the worker dies: what a dead worker left behind is found by that, and removed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()

_PREFIX = "worker-"
_NEW = ".new-"  # made, but not locked yet


class Workplace:
    """Of one worker; `folder` is there while the context of `open_workplace` is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sweep_others(self) -> None:
        """What workers of this host that died meanwhile left."""
        sweep(self.folder.parent)

    @contextmanager
    def attempt(self, name: str) -> Iterator[Path]:
        """A new empty folder that is gone afterwards, whatever happens."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        try:
            yield folder
        finally:
            _remove(folder)


@contextmanager
def open_workplace(root: Path) -> Iterator[Workplace]:
    root.mkdir(parents=True, exist_ok=True)
    sweep(root)
    new = Path(tempfile.mkdtemp(prefix=_NEW, dir=root))
    lock = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = new.rename(root / (_PREFIX + new.name.removeprefix(_NEW)))
        try:
            yield Workplace(folder)
        finally:
            _remove(folder)
    finally:
        os.close(lock)


def sweep(root: Path) -> list[Path]:
    """Removes the folders of workers that are dead; returns what it removed."""
    removed = []
    for folder in root.glob(f"{_PREFIX}*"):
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


def _remove(folder: Path) -> None:
    """A child that was just killed may still hold a file open; that does not keep it here."""

    def complain(_call: object, path: str, error: object) -> None:
        log.warning("a work folder is not empty", path=path, reason=str(error))

    shutil.rmtree(folder, onerror=complain)
