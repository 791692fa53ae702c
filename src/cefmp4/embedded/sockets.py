"""Where the embedded servers listen, so that nobody else can take the place of one: on a socket
file in a folder that only we can enter, or on a port that the owner of the server holds."""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cefmp4.errors import SettingsError

REDIS_SOCKET = Path("redis", "valkey.sock")  # in the state folder
POSTGRES_SOCKET = Path("postgres", "socket", ".s.PGSQL.5432")  # its clients name the folder alone
_LOOPBACK = "127.0.0.1"
_BACKLOG = 1024
_LONGEST_PATH = 107 if sys.platform == "linux" else 103
_LISTENS = "0A"  # TCP_LISTEN, as the kernel writes it
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1  # linux/sock_diag.h
_USER_AT = 16 + 4 + 48 + 3 * 4  # in its answer: behind its head, the state, the ends, three counts


def listen_on_loopback(port: int = 0) -> socket.socket:
    """Of port 0, any free one. While it is open no other program can listen there, also not between
    two lives of the server that takes its connections: those wait for the next."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((_LOOPBACK, port))
        listener.listen(_BACKLOG)  # at once: another may be bound to it, too, until one listens
    except OSError:
        listener.close()
        raise
    return listener


def hold_on_loopback(port: int) -> socket.socket:
    """For a server that takes a number and no socket: whoever asks for any free port is not given
    this one. Whoever names it can listen there: see `listens_at`."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((_LOOPBACK, port))
    except OSError:
        holder.close()
        raise
    return holder


def listens_at(port: int, pid: int) -> bool:
    """Whether that process of ours is the one whom a client of this port of loopback reaches."""
    if sys.platform != "linux":
        return True
    sockets = {inode for inode, _ in _listening_on(port)}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(descriptor) in sockets:
                return True
    return False


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def users_listening_on(port: int) -> set[int]:
    """Whoever a client of this port of loopback would reach. Who listens there on all addresses is
    not it: the kernel prefers the one who named this."""
    return {user for _, user in _listening_on(port)}


def _listening_on(port: int) -> Iterator[tuple[str, int]]:
    """What the kernel calls the socket, and whose it is."""
    address = int.from_bytes(socket.inet_aton(_LOOPBACK), sys.byteorder)
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, _, _, _, user, _, inode, *_ = line.split()
        if state == _LISTENS and local == f"{address:08X}:{port:04X}":
            yield f"socket:[{inode}]", int(user)


def user_at(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Whose the client's end of a connection of this machine is, asked of the kernel by its exact
    addresses. None where it cannot be told, and where it is closed already."""
    if sys.platform != "linux":
        return None
    ends = struct.pack(
        "!HH4s12x4s12x",
        client[1],
        server[1],
        socket.inet_aton(client[0]),
        socket.inet_aton(server[0]),
    )
    any_state, no_cookie = 0xFFFFFFFF, b"\xff" * 8
    asked = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, any_state)
    asked += ends + bytes(4) + no_cookie
    head = struct.pack("=IHHII", 16 + len(asked), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.send(head + asked)
            answer = kernel.recv(4096)
    except OSError:
        return None
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind != _SOCK_DIAG_BY_FAMILY or len(answer) < _USER_AT + 4:
        return None
    user: int = struct.unpack_from("=I", answer, _USER_AT)[0]
    return user


def is_peer(connection: socket.socket, pid: int) -> bool:
    """Whether that process is the one that listens at the other end of a socket file. Only Linux
    tells; elsewhere it is enough that nobody else can enter the folder of the file."""
    if sys.platform != "linux":
        return True
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", told)[0] == pid)


def redis_socket(folder: Path) -> Path:
    """Where our Valkey listens, in a folder of its own that nobody else can enter."""
    path = folder.absolute() / REDIS_SOCKET
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    return _short(path)


def postgres_socket(folder: Path) -> Path:
    """As `redis_socket`; the folder is made by whoever starts our Postgres, for its user."""
    return _short(folder.absolute() / POSTGRES_SOCKET)


def _short(path: Path) -> Path:
    """A path longer than the 107 bytes that a socket may have gets a name for this process alone;
    the descriptor in it stays open as long as the process lives."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return path
    if sys.platform != "linux":
        raise SettingsError(
            f"STATE_DIR: {path} is longer than the {_LONGEST_PATH} bytes that a socket may have",
            hint="choose a folder with a shorter path",
        )
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    return Path(f"/proc/self/fd/{descriptor}", path.name)
