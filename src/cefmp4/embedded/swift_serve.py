"""Loads Swift's four servers and serves them in one event loop. Imported after the patching."""

import io
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import eventlet
import eventlet.wsgi
from swift.common import constraints, utils, wsgi
from swift.common.http_protocol import SwiftHttpProtocol
from swift.common.storage_policy import reload_storage_policies
from swift.common.utils import logs

from cefmp4.embedded.on_disk import keep_text
from cefmp4.embedded.swift_config import (
    BACKENDS,
    DEVICE,
    DEVICES,
    RINGS,
    SWIFT_CONF,
    SwiftOptions,
    backend_conf,
    proxy_conf,
)
from cefmp4.embedded.swift_listing import repeat_updates
from cefmp4.embedded.swift_rings import write_rings
from cefmp4.embedded.swift_wire import listen_backend, route_to_backends, take_public


def serve(options: SwiftOptions) -> None:
    """Never returns. The public port is served last: who gets an answer gets a right one."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    os.umask(0o077)
    _log_to_stderr()
    _prepare_folders(options.data)
    route_to_backends()
    for kind in BACKENDS:
        app = wsgi.loadapp(wsgi.ConfigString(backend_conf(kind)))
        eventlet.spawn(_run, listen_backend(kind), app)
    eventlet.spawn(repeat_updates)
    app = wsgi.loadapp(wsgi.ConfigString(proxy_conf(options)))
    _run(take_public(options.listener), app)


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


def _prepare_folders(data: Path) -> None:
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chdir(data)
    (DEVICES / DEVICE).mkdir(parents=True, exist_ok=True)
    RINGS.mkdir(exist_ok=True)
    keep_text(RINGS / "swift.conf", SWIFT_CONF)
    write_rings(RINGS)
    utils.set_swift_dir(str(RINGS))
    constraints.reload_constraints()
    reload_storage_policies()


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
