"""What other users of this machine could do to us, because somebody left a door open."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from cefmp4.config.settings import Settings
from cefmp4.errors import SettingsError
from cefmp4.log import printable
from cefmp4.model.diagnosis import Diagnosis, ok, warn
from cefmp4.trust import check_trusted

_SUBJECT = "other users"
_SHOWN = 3
_MAX_FOLDERS = 10_000  # of the watched tree; what lies beyond is like the rest


def examine_exposure(settings: Settings) -> list[Diagnosis]:
    """Blocks for a moment on a large tree: run it in a thread."""
    found = [*_watched(settings.watch_dir), *_believed(settings)]
    return found or [ok(_SUBJECT, "may change no folder and no program that we use")]


def _watched(root: Path) -> Iterator[Diagnosis]:
    """Its owner may be somebody else: the recorder. But not everybody."""
    open_folders = [folder for folder in _folders(root) if _is_for_all(folder)]
    if open_folders:
        shown = ", ".join(printable(str(folder)) for folder in open_folders[:_SHOWN])
        more = f" and {len(open_folders) - _SHOWN} more" if len(open_folders) > _SHOWN else ""
        detail = f"everybody may write to the watched folder: {shown}{more}"
        advice = (
            "chmod o-w: whoever can put files there, and take them away, decides what is stored"
        )
        yield warn(_SUBJECT, detail, advice)
    yield from _judged(root.absolute().parent, "the way to WATCH_DIR")


def _folders(root: Path) -> Iterator[Path]:
    yield root
    for seen, (folder, below, _) in enumerate(os.walk(root)):
        if seen > _MAX_FOLDERS:
            return
        for name in below:
            yield Path(folder, name)


def _is_for_all(folder: Path) -> bool:
    try:
        mode = folder.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and bool(mode & stat.S_IWOTH)


def _believed(settings: Settings) -> Iterator[Diagnosis]:
    if settings.after_upload.startswith("move:"):
        target = Path(settings.after_upload.removeprefix("move:"))
        yield from _judged(target, "AFTER_UPLOAD=move")
    for name, program in (
        ("FFMPEG_PATH", settings.ffmpeg_path),
        ("FFPROBE_PATH", settings.ffprobe_path),
    ):
        if found := shutil.which(program):
            yield from _judged(Path(found), name)


def _judged(path: Path, name: str) -> Iterator[Diagnosis]:
    try:
        check_trusted(path, name)
    except SettingsError as error:
        yield warn(_SUBJECT, str(error.args[0]), error.hint)
