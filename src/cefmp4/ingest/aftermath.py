"""What happens to the local file once its object is proven: kept, deleted or moved away."""

import errno
import os
import shutil
from pathlib import Path

import structlog

from cefmp4.errors import SourceError
from cefmp4.ingest.source import SourceFile
from cefmp4.model.stream import Stream

log = structlog.get_logger()


class Aftermath:
    """`action` is keep, delete or move:DIR. Blocking; run it in a thread."""

    def __init__(self, action: str) -> None:
        self._delete = action == "delete"
        self._target = Path(action.removeprefix("move:")) if action.startswith("move:") else None

    @property
    def keeps(self) -> bool:
        return not self._delete and self._target is None

    def apply(self, stream: Stream, source: SourceFile) -> None:
        """Only ever touches the very bytes that were proven: the file must still be in its place
        with the stamp it had."""
        look = source.look()
        if not stream.is_proven or look.stamp != stream.stamp or not look.in_place:
            raise SourceError("the file changed after its upload, so it stays where it is")
        if self._delete:
            os.unlink(source.path)
            log.info("local file deleted after upload", path=stream.relpath)
        elif self._target is not None:
            goal = self._target / stream.relpath
            if goal.exists():
                goal = goal.with_name(f"{goal.stem}~{stream.id}{goal.suffix}")
            goal.parent.mkdir(parents=True, exist_ok=True)
            _move(source.path, goal, stream.id)
            log.info("local file moved after upload", path=stream.relpath, target=str(goal))


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
