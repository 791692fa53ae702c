"""Which files of the watched folder are recordings to upload, judged by their names."""

import re
from fnmatch import translate

from cefmp4.model.names import is_temporary


class Selection:
    """A pattern without '/' is matched with the file name, one with '/' with the whole path below
    the root; letters match in either case, because cameras write both CLIP.MP4 and clip.mp4.
    `archive`: the folder below the root to which uploaded files are moved, if it lies there."""

    def __init__(self, globs: tuple[str, ...], archive: str = "") -> None:
        self.globs = globs
        self._name = _matcher([glob for glob in globs if "/" not in glob])
        self._archive = f"{archive}/" if archive else ""
        self._path = _matcher([glob.lstrip("/") for glob in globs if "/" in glob])

    def __repr__(self) -> str:
        return f"<Selection {self.globs}>"

    def wants(self, relpath: str) -> bool:
        name = relpath.rpartition("/")[2]
        if not (self._name.match(name) or self._path.match(relpath)):
            return False
        if self._archive and relpath.startswith(self._archive):
            return False
        is_hidden = relpath.startswith(".") or "/." in relpath
        return not (is_hidden or is_temporary(name))

    def enters(self, folder_name: str) -> bool:
        """Whether files below a folder of that name can be wanted."""
        return not folder_name.startswith(".")


def _matcher(globs: list[str]) -> re.Pattern[str]:
    nothing = "(?!)"
    return re.compile("|".join(translate(glob) for glob in globs) or nothing, re.IGNORECASE)
