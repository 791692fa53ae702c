"""The state folder: its lock, the keys made once, and what tells other commands how to connect."""

import asyncio
import errno
import fcntl
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pydantic import SecretStr

from cefmp4.config.settings import Settings
from cefmp4.embedded.child import CREDENTIALS, until_ended
from cefmp4.embedded.sockets import (
    listen_on_loopback,
    port_of,
    postgres_socket,
    redis_socket,
    users_listening_on,
)
from cefmp4.embedded.swift_config import ACCOUNT
from cefmp4.errors import CefError, ServerUnreachableError, SettingsError
from cefmp4.model.part import MIB
from cefmp4.trust import check_trusted

LOCK = "lock"
CONNECTION = "connection.json"
PORTS = "ports.json"
DATABASE = DATABASE_USER = "cefmp4"  # in our Postgres
_OURS = {LOCK, CREDENTIALS, CONNECTION, PORTS, "postgres", "redis", "s3", "temporal"}

_LOCK_PATIENCE_SECONDS = 5.0
# Whatever the settings say of how to reach another one.
_OF_OUR_TEMPORAL: dict[str, Any] = {
    "temporal_namespace": "default",
    "temporal_api_key": None,
    "temporal_tls": False,
    "temporal_tls_server_ca_cert_path": None,
    "temporal_tls_client_cert_path": None,
    "temporal_tls_client_key_path": None,
    "temporal_tls_server_name": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    redis_password: str = field(repr=False)
    s3_access_key_id: str
    s3_secret_access_key: str = field(repr=False)
    temporal_codec_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach what a running `up` has started; None for what it did not start. `redis_url` and
    `database_url` may be of use to this process alone, see `redis_socket`."""

    s3_region_name: str
    bucket: str
    pid: int
    redis_url: str | None = field(default=None, repr=False)
    s3_endpoint_url: str | None = None
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = field(default=None, repr=False)
    temporal_address: str | None = None
    temporal_codec_key: str | None = field(default=None, repr=False)
    temporal_page: str | None = None
    database_url: str | None = None  # nothing secret: our Postgres asks the kernel who we are

    @property
    def ports(self) -> dict[str, int]:
        """Of its servers on loopback, by their name."""
        urls = {"S3 server": self.s3_endpoint_url, "Temporal": self.temporal_address}
        return {name: int(url.rpartition(":")[2]) for name, url in urls.items() if url}

    def completing(self, settings: Settings) -> Settings:
        """These settings, with our servers where they name none."""
        changes: dict[str, Any] = {}
        if settings.redis_address is None and self.redis_url:
            changes["redis_url"] = SecretStr(self.redis_url)
        if settings.s3_endpoint_url is None and self.s3_endpoint_url:
            changes["s3_endpoint_url"] = self.s3_endpoint_url
            changes["s3_access_key_id"] = self.s3_access_key_id
            changes["s3_secret_access_key"] = SecretStr(self.s3_secret_access_key or "")
        if settings.temporal_address is None and self.temporal_address:
            changes["temporal_address"] = self.temporal_address
            changes["temporal_codec_key"] = SecretStr(self.temporal_codec_key or "")
            changes |= _OF_OUR_TEMPORAL
        if settings.database_url is None and self.database_url:
            changes["database_url"] = SecretStr(self.database_url)
        return settings.model_copy(update=changes)


def load_connection(state_dir: Path) -> Connection | None:
    """What the `up` that runs on this folder has written; None where none runs."""
    try:
        text = (state_dir / CONNECTION).read_text()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise SettingsError(
            f"STATE_DIR={state_dir}: it belongs to another user", hint="run this as that user"
        ) from None
    check_trusted(state_dir / CONNECTION, "STATE_DIR")
    try:
        connection = Connection(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{state_dir / CONNECTION} cannot be read: {error}") from None
    if not (_is_held(state_dir) and _is_alive(connection.pid)):
        return None
    _check_listener(connection)
    return _for_this_process(state_dir, connection)


def _for_this_process(state_dir: Path, connection: Connection) -> Connection:
    if connection.redis_url is not None:
        password = urlsplit(connection.redis_url).password or ""
        connection = replace(connection, redis_url=redis_url(state_dir, password))
    if connection.database_url is not None:
        connection = replace(connection, database_url=database_url(state_dir))
    return connection


def redis_url(state_dir: Path, password: str) -> str:
    """As this process can use it."""
    return f"unix://:{password}@{quote(str(redis_socket(state_dir)))}"


def database_url(state_dir: Path) -> str:
    """As this process can use it. The port is part of the name of the socket."""
    where = {"host": str(postgres_socket(state_dir).parent), "port": "5432"}
    return f"postgresql://{DATABASE_USER}@/{DATABASE}?{urlencode(where)}"


async def until_gone(connection: Connection) -> None:
    """Returns when a port of its servers is anybody's: never, where they have none."""
    if not connection.ports:
        await asyncio.Event().wait()
    await until_ended(connection.pid)


def _check_listener(connection: Connection) -> None:
    """Before anything is sent there: where `up` ended a moment ago, its ports are anybody's."""
    if sys.platform != "linux":
        return
    for server, port in connection.ports.items():
        users = users_listening_on(port)
        # Temporal's is free between two of its lives: whoever needs it says that it is away.
        if not users and server != "Temporal":
            raise ServerUnreachableError(
                f"the embedded {server} of `cefmp4 up` is not there any more"
            )
        if users - {os.geteuid()}:
            raise SettingsError(
                f"another user of this machine listens on port {port}, where `cefmp4 up` had its "
                f"{server}",
                hint="start `cefmp4 up` again: it takes another port",
            )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def _is_held(state_dir: Path) -> bool:
    """The lock outlives no process, while a process id may be in use again: in a container it
    nearly always is."""
    with suppress(FileNotFoundError), open(state_dir / LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@asynccontextmanager
async def own(folder: Path) -> AsyncIterator[int]:
    """Makes the folder, and yields the descriptor of its lock. The servers inherit that, so that
    nobody starts a second server on data that a dying one still writes."""
    try:
        _make(folder)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsError(f"STATE_DIR={folder}: {error.strerror}") from None
    try:
        await _wait_for_lock(folder, lock)
        yield lock
    finally:
        os.close(lock)


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_trusted(folder, "STATE_DIR")
    names = os.listdir(folder)
    for name in {*names} & _OURS:  # of a user who ran it before, perhaps
        check_trusted(folder / name, "STATE_DIR", also_parents=False)
    # A folder that somebody fills with other things keeps its mode; our files have theirs.
    if not names or LOCK in names:
        with suppress(PermissionError):  # a mounted volume that root owns
            folder.chmod(0o700)


async def _wait_for_lock(folder: Path, lock: int) -> None:
    """Servers of a killed owner are gone within moments: worth waiting for. An owner is not."""
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        running = load_connection(folder)
        if running and running.pid != os.getpid():
            raise _in_use(folder, f"another `cefmp4 up` (process {running.pid})")
        if time.monotonic() > deadline:
            raise _in_use(folder, "a server that a former `cefmp4 up` left behind")
        await asyncio.sleep(0.05)


def _in_use(folder: Path, by: str) -> SettingsError:
    return SettingsError(
        f"STATE_DIR={folder}: in use by {by}", hint="stop it, or choose another folder"
    )


def check_has_room(folder: Path) -> None:
    """What the servers write at a start is little, but they cannot do without it."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < MIB:
        raise CefError(f"STATE_DIR={folder}: its disk is full", hint="free some space on it")


def credentials_in(folder: Path) -> Credentials:
    """Made at the first start and kept: clients may have been told them."""
    path = folder / CREDENTIALS
    made = new_credentials()
    try:
        kept = json.loads(path.read_text())
        made = replace(made, **kept)
        if asdict(made) != kept:  # of a version that knew fewer servers
            write_private(path, asdict(made))
        return made
    except FileNotFoundError:
        write_private(path, asdict(made))
        return made
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{path} cannot be read: {error}", hint="delete it to get new ones"
        ) from None


def codec_key_in(folder: Path) -> str:
    """What signs the jobs of who runs on this folder, also where no server of ours does."""
    _make(folder)
    return credentials_in(folder).temporal_codec_key


def listen_for(
    folder: Path, server: str, listen: Callable[[int], socket.socket] = listen_on_loopback
) -> socket.socket:
    """On the port of the last start, so that addresses people wrote down stay right, if it is free;
    else on any free one."""
    ports = _ports_of_last_start(folder)
    port = ports.get(server)
    former = port if isinstance(port, int) and 0 < port < 65536 else 0
    try:
        listener = listen(former)
    except OSError:
        listener = listen(0)
    if port_of(listener) != former:
        write_private(folder / PORTS, {**ports, server: port_of(listener)})
    return listener


def _ports_of_last_start(folder: Path) -> dict[str, Any]:
    """A convenience: any others will do."""
    try:
        ports = json.loads((folder / PORTS).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return ports if isinstance(ports, dict) else {}


@contextmanager
def published(folder: Path, connection: Connection) -> Iterator[None]:
    """Other commands find it meanwhile."""
    try:
        write_private(folder / CONNECTION, asdict(connection))
        yield
    finally:
        (folder / CONNECTION).unlink(missing_ok=True)


def new_credentials() -> Credentials:
    return Credentials(
        redis_password=secrets.token_urlsafe(24),
        s3_access_key_id=f"{ACCOUNT}:{secrets.token_hex(6)}",
        s3_secret_access_key=secrets.token_urlsafe(30),
        temporal_codec_key=secrets.token_urlsafe(30),
    )


def write_private(path: Path, content: dict[str, Any]) -> None:
    """All or nothing, and at no moment readable by others."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SettingsError(f"STATE_DIR: {path} cannot be written: {error.strerror}") from None
