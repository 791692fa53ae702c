"""Which multipart upload was begun for a key, and of which content, so that one that was cut off is
gone on with. The store does not tell whose an open upload is, nor of what, so it is written down
here: one small file for each key, which is gone when the upload is at its end. Blocking."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cefmp4.errors import SettingsError
from cefmp4.transfer.locked_file import open_locked, short_name

_MOST_BYTES = 8192


@dataclass(frozen=True, slots=True)
class UploadNotes:
    """`folder` None: nothing is written down. `place`: of which store and bucket they are."""

    folder: Path | None
    place: str = ""

    def open(self, key: str) -> "Note":
        """Nobody else may send to that key from here meanwhile. Raises RefusedError, SettingsError
        where nothing can be written down."""
        if self.folder is None:
            return Note(None, "", None)
        name = short_name(self.place, key)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return Note(folder, name, open_locked(folder, name, 0o600))
            except BaseException:
                os.close(folder)
                raise
        except OSError as error:
            raise SettingsError(
                f"{self.folder} cannot be written to: {error.strerror}",
                hint="it notes open uploads; give STATE_DIR another folder",
            ) from None


class Note:
    """`content` and `upload_id` are "" where nothing was begun."""

    def __init__(self, folder: int | None, name: str, fd: int | None) -> None:
        self._folder = folder
        self._name = name
        self._fd = fd
        text = b"" if fd is None else os.pread(fd, _MOST_BYTES, 0)
        lines = text.decode("utf-8", "replace").split("\n")
        is_whole = len(lines) == 3 and not lines[2]  # it may have been cut off, too
        self.content, self.upload_id = (lines[0], lines[1]) if is_whole else ("", "")

    def write(self, content: str, upload_id: str) -> None:
        self.content, self.upload_id = content, upload_id
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{content}\n{upload_id}\n".encode(), 0)
            os.fsync(self._fd)

    def close(self) -> None:
        """A note of nothing leaves no file."""
        if self._fd is None or self._folder is None:
            return
        if not self.upload_id:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._folder)
        os.close(self._fd)
        os.close(self._folder)
