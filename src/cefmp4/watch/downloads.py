"""What aria2 is still filling: it writes under the final name, out of order, with a control file
beside it. A paused download may go on days later: it is never taken for finished, but told of."""

import os
import stat
import time
from collections.abc import Set

import structlog

from cefmp4.recording.beneath import look_up

log = structlog.get_logger()

ARIA2_SUFFIX = ".aria2"
STANDS_STILL_S = 24 * 3600.0  # aria2 writes its control file once a minute
HINT = "go on with the download, or remove the .aria2 file beside the recording"


def is_being_downloaded(root: str, relpath: str) -> bool:
    """Blocking."""
    try:
        return is_control_of(look_up(root, relpath + ARIA2_SUFFIX), look_up(root, relpath))
    except OSError:
        return False


def is_control_of(control: os.stat_result, file: os.stat_result) -> bool:
    """aria2 makes both, as one user. With what anybody else put there, a recording could be hidden
    for ever."""
    is_own = control.st_uid == file.st_uid and not os.path.samestat(control, file)
    return is_own and stat.S_ISREG(control.st_mode)


def stands_still(control: os.stat_result, file: os.stat_result) -> bool:
    return time.time() - max(file.st_mtime, control.st_mtime) > STANDS_STILL_S


class DownloadReport:
    """Tells of recordings that wait for a download which nobody goes on with, and of what only
    looks like one: each once, however many there are."""

    def __init__(self) -> None:
        self._standing_still: Set[str] = frozenset()
        self._not_downloading: Set[str] = frozenset()

    @property
    def waiting_for(self) -> str:
        if not (standing := self._standing_still):
            return ""
        return f"{len(standing)} recordings wait for a download, {min(standing)!a} first: {HINT}"

    def tell(self, standing_still: Set[str], not_downloading: Set[str]) -> None:
        if new := standing_still - self._standing_still:
            log.warning(
                "recordings wait for a download that stands still for a day",
                count=len(standing_still),
                file_path=min(new),
                hint=HINT,
            )
        if new := not_downloading - self._not_downloading:
            log.warning(
                "recordings are taken although there are .aria2 files: these are not of their user",
                count=len(not_downloading),
                file_path=min(new),
            )
        self._standing_still = standing_still
        self._not_downloading = not_downloading
