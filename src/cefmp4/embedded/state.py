"""The state folder: its lock, the keys made once, and what tells other commands how to connect."""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cefmp4.embedded.swift_config import ACCOUNT
from cefmp4.errors import SettingsError

LOCK = "lock"
CREDENTIALS = "credentials.json"
CONNECTION = "connection.json"
PORTS = "ports.json"

_LOCK_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    redis_password: str = field(repr=False)
    s3_access_key_id: str
    s3_secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach what a running `up` has started; None for what it did not start."""

    redis_url: str | None = field(repr=False)
    s3_endpoint_url: str | None
    s3_access_key_id: str | None
    s3_secret_access_key: str | None = field(repr=False)
    s3_region_name: str
    bucket: str
    pid: int


def load_connection(state_dir: Path) -> Connection | None:
    """What the `up` that runs on this folder has written; None where none runs."""
    try:
        connection = Connection(**json.loads((state_dir / CONNECTION).read_text()))
    except FileNotFoundError:
        return None
    except PermissionError:
        raise SettingsError(
            f"STATE_DIR={state_dir}: it belongs to another user", hint="run this as that user"
        ) from None
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{state_dir / CONNECTION} cannot be read: {error}") from None
    return connection if _is_held(state_dir) and _is_alive(connection.pid) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_held(state_dir: Path) -> bool:
    """The lock outlives no process, while a process id may be in use again: in a container it
    nearly always is."""
    with contextlib.suppress(FileNotFoundError), open(state_dir / LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class StateFolder:
    """Owns the folder from `open` to `close`. The servers inherit the lock, so that nobody starts
    a second server on data that a dying one still writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def lock(self) -> int:
        if self._lock is None:
            raise RuntimeError("the state folder is not open")
        return self._lock

    async def open(self) -> None:
        self._make()
        with contextlib.ExitStack() as opening:
            descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            opening.callback(os.close, descriptor)
            await self._wait_for_lock(descriptor)
            self._lock = descriptor
            opening.pop_all()

    async def _wait_for_lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while True:
            if self._locked(descriptor):
                return
            if time.monotonic() > deadline:
                raise self._in_use("a server that a former `cefmp4 up` left behind")
            await asyncio.sleep(0.05)

    def _locked(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Servers of a killed owner are gone within moments: worth waiting for. An owner is not.
            running = load_connection(self.path)
            if running and running.pid != os.getpid():
                raise self._in_use(f"another `cefmp4 up` (process {running.pid})") from None
            return False
        return True

    def _in_use(self, by: str) -> SettingsError:
        return SettingsError(
            f"STATE_DIR={self.path}: in use by {by}", hint="stop it, or choose another folder"
        )

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = os.listdir(self.path)
            # A folder that somebody fills with other things keeps its mode; our files have theirs.
            if not names or LOCK in names:
                with contextlib.suppress(PermissionError):  # a mounted volume that root owns
                    self.path.chmod(0o700)
        except OSError as error:
            raise SettingsError(f"STATE_DIR={self.path}: {error.strerror}") from None

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def credentials(self) -> Credentials:
        """Made at the first start and kept: clients may have been told them."""
        path = self.path / CREDENTIALS
        try:
            return Credentials(**json.loads(path.read_text()))
        except FileNotFoundError:
            made = new_credentials()
            write_private(path, asdict(made))
            return made
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(
                f"{path} cannot be read: {error}", hint="delete it to get new ones"
            ) from None

    def port(self, server: str) -> int:
        """The one of the last start, so that addresses people wrote down stay right, if it is
        free; else any free one."""
        ports = self._ports()
        port = ports.get(server, 0)
        if not port or not _is_free(port):
            port = free_port()
            while port in ports.values():  # the other server's, which may not listen yet
                port = free_port()
            write_private(self.path / PORTS, {**ports, server: port})
        return port

    def _ports(self) -> dict[str, int]:
        try:
            ports = json.loads((self.path / PORTS).read_text())
        except (FileNotFoundError, ValueError):
            return {}  # a convenience: new ports are chosen
        return {name: port for name, port in dict(ports).items() if isinstance(port, int)}

    def publish(self, connection: Connection) -> None:
        write_private(self.path / CONNECTION, asdict(connection))

    def unpublish(self) -> None:
        (self.path / CONNECTION).unlink(missing_ok=True)


def new_credentials() -> Credentials:
    return Credentials(
        redis_password=secrets.token_urlsafe(24),
        s3_access_key_id=f"{ACCOUNT}:{secrets.token_hex(6)}",
        s3_secret_access_key=secrets.token_urlsafe(30),
    )


def write_private(path: Path, content: dict[str, Any]) -> None:
    """All or nothing, and at no moment readable by others."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
