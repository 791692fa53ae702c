"""What aria2 is still filling: it writes under the final name, out of order, with a control file
beside it. A paused download may go on days later: it is never taken for finished, but told of."""

import os
import stat
import time
from collections.abc import Set

from cefmp4.recording.beneath import look_up

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


def waiting_for(standing_still: Set[str]) -> str:
    """In one line; empty where there is nothing."""
    if not standing_still:
        return ""
    first = min(standing_still)
    return f"{len(standing_still)} recordings wait for a download, {first!a} first: {HINT}"
