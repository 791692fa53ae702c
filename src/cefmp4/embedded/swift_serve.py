"""Loads Swift's four servers and serves them in one event loop: one TCP port that checks
signatures, and three socket files behind it. Imported after the patching.

Swift's inner servers trust whoever reaches them. As socket files in a folder of ours alone they
are out of reach for other users of the machine, which TCP ports are not; they cost less, too."""

import errno
import io
import logging
import os
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import eventlet
import eventlet.wsgi
from eventlet.green import socket as green_socket
from swift.common import bufferedhttp, constraints, utils, wsgi
from swift.common.http_protocol import SwiftHttpProtocol
from swift.common.ring import RingBuilder
from swift.common.storage_policy import reload_storage_policies
from swift.common.utils import logs
from swift.obj.diskfile import BaseDiskFileManager

from cefmp4.embedded.child import keep_text
from cefmp4.embedded.sockets import user_at
from cefmp4.embedded.swift_config import (
    BACKENDS,
    DEVICE,
    DEVICES,
    RINGS,
    SOCKETS,
    SWIFT_CONF,
    backend_conf,
)

_PART_POWER = 4  # a constant of the data on disk, as the hash suffix is
_UPDATE_EVERY_S = 2.0
_MOST_UNWRITTEN = 10_000
_BACKLOG = 1024
_ROOT = 0
_UPDATER_CONF = {
    "swift_dir": str(RINGS),
    "devices": str(DEVICES),
    "mount_check": "false",
    "log_level": "WARNING",
    "conn_timeout": "10",
    "node_timeout": "30",
    "objects_per_second": "1000",
}


def serve(data: Path, listener: int, conf: str) -> None:
    """Never returns. `listener` is the descriptor of the port that our owner holds open, so that
    nobody else can take it while we restart; `conf` is that of the proxy. The public port is served
    last: who gets an answer gets a right one."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    os.umask(0o077)
    _log_to_stderr()
    _prepare_folders(data)
    _route_to_backends()
    unwritten = _keep_unwritten_notes()
    for kind in BACKENDS:
        app = wsgi.loadapp(wsgi.ConfigString(backend_conf(kind)))
        eventlet.spawn(_run, _listen_backend(kind), app)
    eventlet.spawn(_repeat_updates, unwritten)
    app = wsgi.loadapp(wsgi.ConfigString(conf))
    _run(_OwnersPort(fileno=listener), app)


def _run(listener: Any, app: Any) -> None:
    # Capital letters are left alone: S3 clients want "ETag", not "Etag".
    warnings.filterwarnings("ignore", message="capitalize_response_headers is disabled")
    eventlet.wsgi.server(
        listener,
        app,
        utils.NullLogger(),
        protocol=SwiftHttpProtocol,
        capitalize_response_headers=False,
        socket_timeout=60,
        max_size=1024,
        url_length_limit=constraints.MAX_REQUEST_LINE,
        debug=False,
    )


class _OwnersPort(green_socket.socket):  # type: ignore[misc]  # eventlet has no types
    """Takes connections of our user and of root alone: others of this machine have no keys, and
    would only take the places of those who do."""

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        while True:
            connection, client = super().accept()
            if user_at(client, connection.getsockname()) in (None, _ROOT, os.geteuid()):
                return connection, client
            connection.close()
            eventlet.sleep(0)  # a flood of them must not keep the others from their work


def _backend_port(kind: str) -> int:
    """Swift's rings speak of ports. Ours only name a socket file."""
    return 1 + BACKENDS.index(kind)


def _listen_backend(kind: str) -> socket.socket:
    SOCKETS.mkdir(mode=0o700, exist_ok=True)
    SOCKETS.chmod(0o700)
    (SOCKETS / kind).unlink(missing_ok=True)
    listener = green_socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(SOCKETS / kind))
    listener.listen(_BACKLOG)
    return listener  # type: ignore[no-any-return]  # eventlet has no types


def _route_to_backends() -> None:
    """Every request that Swift makes itself goes to a backend: connect it to the file."""
    addresses = {_backend_port(kind): str(SOCKETS / kind) for kind in BACKENDS}

    def connect(connection: bufferedhttp.BufferedHTTPConnection) -> None:
        connection._connected_time = 0.0  # for a debug line that is switched off
        connection.sock = green_socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(addresses[connection.port])

    bufferedhttp.BufferedHTTPConnection.connect = connect


def _prepare_folders(data: Path) -> None:
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chdir(data)
    (DEVICES / DEVICE).mkdir(parents=True, exist_ok=True)
    RINGS.mkdir(exist_ok=True)
    keep_text(RINGS / "swift.conf", SWIFT_CONF)
    for kind in BACKENDS:
        _write_ring(kind)
    utils.set_swift_dir(str(RINGS))
    constraints.reload_constraints()
    reload_storage_policies()


def _write_ring(kind: str) -> None:
    """Where data lies: there is one device. Written at every start: it takes milliseconds, and what
    a crash tore is gone. On a full disk the one of the last start serves: they are all the same."""
    builder = RingBuilder(_PART_POWER, 1, 0)
    device = {"id": 0, "region": 1, "zone": 1, "device": DEVICE, "weight": 1}
    builder.add_dev({**device, "ip": "127.0.0.1", "port": _backend_port(kind)})
    builder.rebalance(seed="cefmp4")
    path = RINGS / f"{kind}.ring.gz"
    try:
        builder.get_ring().save(str(path))
    except OSError as error:
        if error.errno != errno.ENOSPC or not path.exists():
            raise
        for torn in path.parent.glob(f"{path.name}?*"):
            torn.unlink()


def _keep_unwritten_notes() -> deque[Callable[[], None]]:
    """Returns the notes that wait in memory for a disk that takes them. A request whose listing was
    not updated, nor a note left of it, fails; but what it stored or deleted stays so, and whoever
    asks again is told that it is done."""
    unwritten: deque[Callable[[], None]] = deque(maxlen=_MOST_UNWRITTEN)
    write = BaseDiskFileManager.pickle_async_update

    def write_or_keep(*note: Any) -> None:
        try:
            write(*note)
        except OSError:
            unwritten.append(partial(write, *note))
            raise

    BaseDiskFileManager.pickle_async_update = write_or_keep
    return unwritten


def _repeat_updates(unwritten: deque[Callable[[], None]]) -> None:
    """Never returns. Makes listings tell of all that is stored: Swift's object server answers
    "stored" also when a listing could not be updated, for a full disk say, and leaves a note for
    another daemon. Without a note it costs one look at a folder."""
    device = DEVICES / DEVICE
    notes = device / "async_pending"
    while True:
        time.sleep(_UPDATE_EVERY_S)
        with suppress(OSError):
            while unwritten:
                unwritten[0]()
                unwritten.popleft()
        if not (notes.is_dir() and any(notes.iterdir())):
            continue
        from swift.obj.updater import ObjectUpdater  # takes time, and is hardly ever needed

        updater = ObjectUpdater(_UPDATER_CONF)
        try:
            updater.object_sweep(str(device))
        except Exception:  # the next look finds the note again
            updater.logger.exception("listings could not be updated")


class _Stderr(io.FileIO):
    """A full disk takes no log; without this the first line that it cannot take ends the server."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _log_to_stderr() -> None:
    """Swift logs to syslog, by UDP where there is none. Ours goes where the starter points stderr:
    to a file."""
    sys.stderr = io.TextIOWrapper(
        _Stderr(2, "w", closefd=False), errors="backslashreplace", write_through=True
    )

    def handler(*_: Any, **__: Any) -> logging.Handler:
        return logging.StreamHandler(sys.stderr)

    logs.ThreadSafeSysLogHandler = handler
