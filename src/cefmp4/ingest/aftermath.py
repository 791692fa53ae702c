"""What happens to the local file once its object is proven: kept, deleted or moved away."""

import errno
import os
import shutil
from pathlib import Path

import structlog

from cefmp4.errors import SettingsError, SourceError
from cefmp4.ingest.identity import holds
from cefmp4.ingest.source import SourceFile
from cefmp4.model.stream import FileStamp, Stream

log = structlog.get_logger()


def check_after_upload(action: str, watched: Path) -> None:
    """Raises SettingsError where it is certain, before anything is uploaded, that nothing could be
    deleted or moved."""
    if action == "keep":
        return
    if watched.is_dir() and os.statvfs(watched).f_flag & os.ST_RDONLY:
        raise SettingsError(
            f"AFTER_UPLOAD={action}: WATCH_DIR={watched} is mounted read-only",
            hint="mount it writable (docker compose: WATCH_DIR_READ_ONLY=false) or keep files",
        )
    if action.startswith("move:"):
        target = Path(action.removeprefix("move:"))
        try:
            target.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"AFTER_UPLOAD={action}: no folder can be made there: {reason}"
            ) from None
        if not os.access(target, os.W_OK | os.X_OK):
            raise SettingsError(f"AFTER_UPLOAD={action}: the folder cannot be written")


class Aftermath:
    """`action` is keep, delete or move:DIR. Blocking; run it in a thread."""

    def __init__(self, action: str) -> None:
        self._delete = action == "delete"
        self._target = Path(action.removeprefix("move:")) if action.startswith("move:") else None

    @property
    def keeps(self) -> bool:
        return not self._delete and self._target is None

    def apply(self, stream: Stream, source: SourceFile, proven: FileStamp | None) -> None:
        """Only ever touches the very bytes that were proven. `proven`: the stamp of this very
        descriptor when all of it was read for the proof; else it is read again now, whatever its
        stamp says."""
        before = source.look()
        if proven is None or before.stamp != proven:
            _require(holds(source, stream))
        look = source.look()
        _require(stream.is_proven and look.in_place and look.stamp == before.stamp)
        if self._delete:
            os.unlink(source.path)
            log.info("local file deleted after upload", file_path=stream.relpath)
        elif self._target is not None:
            goal = self._target / stream.relpath
            if goal.exists():
                goal = goal.with_name(f"{goal.stem}~{stream.id}{goal.suffix}")
            goal.parent.mkdir(parents=True, exist_ok=True)
            _move(source.path, goal, stream.id)
            log.info("local file moved after upload", file_path=stream.relpath, target=str(goal))


def _require(condition: bool) -> None:
    if not condition:
        raise SourceError("the file changed after its upload, so it stays where it is")


def _move(path: str, goal: Path, stream_id: str) -> None:
    """To another file system it is copied under a passing name first: a disk that gets full on the
    way leaves no torn recording there."""
    try:
        os.rename(path, goal)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    beside = goal.with_name(f".{stream_id}.part")
    try:
        shutil.copy2(path, beside)
        os.replace(beside, goal)
    finally:
        beside.unlink(missing_ok=True)
    os.unlink(path)
