"""What happens to the local file once its object is proven: kept, deleted or moved away."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from cefmp4.errors import SettingsError
from cefmp4.ingest.after.leaving import aside_name, leaving_file, require_unchanged
from cefmp4.model.stream import FileStamp, Stream
from cefmp4.recording.beneath import folder_of, rename_to_free
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import holds

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
        if target.resolve() == watched.resolve():
            raise SettingsError(
                f"AFTER_UPLOAD={action}: that is WATCH_DIR itself",
                hint="choose another folder, outside or below",
            )
        try:
            target.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"AFTER_UPLOAD={action}: no folder can be made there: {reason}"
            ) from None
        if not os.access(target, os.W_OK | os.X_OK):
            raise SettingsError(f"AFTER_UPLOAD={action}: the folder cannot be written")


def archive_below(action: str, watched: Path) -> str:
    """The folder that finished files are moved to, where it lies in the watched one; else empty."""
    place, top = Path(action.removeprefix("move:")).resolve(), watched.resolve()
    is_below = action.startswith("move:") and place != top and place.is_relative_to(top)
    return str(place.relative_to(top)) if is_below else ""


class LocalFilePolicy:
    """`action` is keep, delete or move:DIR. Blocking; run it in a thread. `is_written` tells of a
    descriptor whether anybody else has its file open for writing, and may be asked there."""

    def __init__(self, action: str, is_written: Callable[[int], bool] = lambda _: False) -> None:
        self._delete = action == "delete"
        self._target = action.removeprefix("move:") if action.startswith("move:") else None
        self._is_written = is_written

    @property
    def keeps(self) -> bool:
        return not self._delete and self._target is None

    def apply(
        self,
        stream: Stream,
        source: SourceFile,
        proven: FileStamp | None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Only ever touches the very bytes that were proven, and none to which a writer may add: a
        recorder that pauses is proven, too. `proven`: the stamp of this very descriptor when all of
        it was read for the proof; else it is read again now, whatever its stamp says."""
        before = source.look()
        if proven is None or before.stamp != proven:
            require_unchanged(holds(source, stream, is_stopped=is_stopped))
        look = source.look()
        require_unchanged(stream.is_proven and look.in_place and look.stamp == before.stamp)
        with leaving_file(source, look.stamp, stream.id, self._is_written) as file:
            if self._target is None:
                file.delete()
                log.info("local file deleted after upload", file_path=stream.relpath)
            else:
                goal = file.move_below(self._target, stream.relpath, is_stopped)
                log.info("local file moved after upload", file_path=stream.relpath, target=goal)

    def bring_back(self, root: str, stream: Stream) -> None:
        """Its name again, unless another has it now, for a file that a crash between the two steps
        of a removal left set aside. There is none, nearly always."""
        if self.keeps:
            return
        with suppress(OSError), folder_of(root, stream.relpath) as (folder, name):
            rename_to_free(folder, aside_name(stream.id), folder, name)
            log.info("a file that was being removed is back", file_path=stream.relpath)
