"""The identity of a watched folder: records, keys and recognition go by it, not by its path."""

import re
from dataclasses import dataclass

from cefmp4.model.names import folder_tag, folder_tag_in

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def is_folder_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedFolder:
    """`others`: what else this very folder is or was called, such as before WATCH_DIR_ID was set.
    Older versions gave no names at all."""

    id: str = ""
    others: frozenset[str] = frozenset()

    def is_called(self, folder_id: str) -> bool:
        return not folder_id or folder_id == self.id or folder_id in self.others

    def may_own(self, key: str) -> bool:
        """Whether the stream id in the key, if there is one, may be of this folder."""
        tag = folder_tag_in(key)
        return not tag or tag in {folder_tag(name) for name in (self.id, *self.others)}


NAMELESS = WatchedFolder()  # as of a version that gave no names
