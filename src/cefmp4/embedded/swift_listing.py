"""Makes listings tell of everything that is stored. Swift's object server answers "stored" also
when a listing could not be updated, for a full disk say, and leaves a note for another daemon."""

import time
from pathlib import Path

from cefmp4.embedded.swift_config import DEVICE, DEVICES, RINGS

EVERY_S = 2.0

_CONF = {
    "swift_dir": str(RINGS),
    "devices": str(DEVICES),
    "mount_check": "false",
    "log_level": "WARNING",
    "conn_timeout": "10",
    "node_timeout": "30",
    "objects_per_second": "1000",
}


def repeat_updates() -> None:
    """Never returns: a thread of eventlet. Without a note it costs one look at a folder."""
    device = DEVICES / DEVICE
    while True:
        time.sleep(EVERY_S)
        if _has_any(device / "async_pending"):
            _sweep(device)


def _has_any(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _sweep(device: Path) -> None:
    from swift.obj.updater import ObjectUpdater  # takes time, and is hardly ever needed

    updater = ObjectUpdater(_CONF)
    try:
        updater.object_sweep(str(device))
    except Exception:  # the next look finds the note again
        updater.logger.exception("listings could not be updated")
