"""A real S3 server in one process: OpenStack Swift with its S3 API, bound to loopback.

Run as a child process, because eventlet replaces the blocking calls of the whole process."""

import asyncio
import errno
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from cefmp4.embedded import process, swift_config
from cefmp4.embedded.child import begin
from cefmp4.embedded.process import ServerProcess
from cefmp4.embedded.sockets import port_of
from cefmp4.errors import SettingsError
from cefmp4.model.part import MIN_PART_BYTES

_REMEDY = "set S3_ENDPOINT_URL, S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY to a server of yours"


def check_installed() -> None:
    if sys.platform != "linux":
        raise SettingsError(
            "S3_ENDPOINT_URL is not set, and the embedded S3 server runs on Linux only",
            hint=_REMEDY,
        )
    process.check_installed("swift", "S3 server", "S3_ENDPOINT_URL", _REMEDY)


def check_folder_fits(folder: Path) -> None:
    """Swift keeps what it knows of an object in extended attributes of its file."""
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        try:
            os.setxattr(probe.name, "user.cefmp4", b"x" * 1024)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOSPC, errno.EPERM):
                raise
            raise SettingsError(
                f"STATE_DIR={folder}: its file system keeps no user extended attributes, "
                "which the embedded S3 server needs",
                hint=f"choose a folder on ext4, xfs or btrfs, or {_REMEDY}",
            ) from None


def swift_process(
    folder: Path,
    listener: socket.socket,
    *,
    region: str,
    min_part_bytes: int = MIN_PART_BYTES,
    keep_open: Sequence[int] = (),
) -> ServerProcess:
    """It takes the connections of `listener`, which stays open here: whoever answers there is ours.
    `min_part_bytes` is as on AWS; tests make it smaller to use small files."""
    port = port_of(listener)

    async def answers(_pid: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = "GET /healthcheck HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return await process.answers(reader, writer, request, b"HTTP/1.1 200")

    return ServerProcess(
        "S3 server",
        "cefmp4.embedded.swift_server",
        data=folder.absolute() / "s3",
        options={
            "listener": listener.fileno(),
            "region": region,
            "min_part_bytes": min_part_bytes,
        },
        probe=answers,
        keep_open=[*keep_open, listener.fileno()],
    )


def main() -> None:
    given, keys = begin()
    conf = swift_config.proxy_conf(
        keys, region=given["region"], min_part_bytes=given["min_part_bytes"]
    )
    os.environ["EVENTLET_NO_GREENDNS"] = "yes"  # no name is ever resolved; saves start-up time
    # It tells maintainers to move away from eventlet; Swift has not.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

    import eventlet

    eventlet.hubs.use_hub("poll")  # Swift's choice too; its comments tell of epoll losing events
    eventlet.monkey_patch()

    from cefmp4.embedded.swift_serve import serve  # after the patch, with all of Swift

    serve(Path(given["data"]), given["listener"], conf)


if __name__ == "__main__":
    main()
