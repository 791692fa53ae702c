"""Whether changes are told by the kernel or found by looking, where the settings leave it open."""

from pathlib import Path

from cefmp4.config.ingest import WatchMode
from cefmp4.recording.mounts import fs_type_of_path, is_remote


def choose_mode(root: Path, mode: WatchMode) -> WatchMode:
    if mode is not WatchMode.AUTO:
        return mode
    return WatchMode.POLLING if is_remote(fs_type_of_path(root)) else WatchMode.EVENTS
