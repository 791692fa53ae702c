"""The two servers: how each is started, and how each shows that it is ready."""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from pathlib import Path

from cefmp4.embedded.process import ServerProcess
from cefmp4.embedded.sockets import is_peer, port_of, redis_socket
from cefmp4.embedded.state import CREDENTIALS, Credentials
from cefmp4.model.part import MIN_PART_BYTES


def valkey_process(
    folder: Path, credentials: Credentials, *, keep_open: Sequence[int] = ()
) -> ServerProcess:
    """Its data, log and socket lie in `folder`, where the credentials are stored already."""
    path = redis_socket(folder)

    async def answers(pid: int) -> bool:
        reader, writer = await asyncio.open_unix_connection(path)
        if not is_peer(writer.get_extra_info("socket"), pid):
            writer.close()
            return False
        # While it loads its data it answers too, but with an error.
        request = f"AUTH {credentials.redis_password}\r\nPING\r\n"
        return await _asked(reader, writer, request, b"+OK\r\n+PONG\r\n")

    return ServerProcess(
        "Valkey",
        ["-m", "cefmp4.embedded.valkey_server", *_place(folder, "redis")],
        log=folder / "redis.log",
        probe=answers,
        keep_open=keep_open,
    )


def swift_process(
    folder: Path,
    listener: socket.socket,
    *,
    region: str,
    min_part_bytes: int = MIN_PART_BYTES,
    keep_open: Sequence[int] = (),
) -> ServerProcess:
    """Its data and log lie in `folder`, where the credentials are stored already. It takes the
    connections of `listener`, which stays open here: whoever answers there is ours."""
    port = port_of(listener)

    async def answers(_pid: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = "GET /healthcheck HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return await _asked(reader, writer, request, b"HTTP/1.1 200")

    command = [
        "-m",
        "cefmp4.embedded.swift_server",
        *_place(folder, "s3"),
        f"--listener={listener.fileno()}",
        f"--region={region}",
        f"--min-part-bytes={min_part_bytes}",
    ]
    return ServerProcess(
        "S3 server",
        command,
        log=folder / "s3.log",
        probe=answers,
        keep_open=[*keep_open, listener.fileno()],
    )


def _place(folder: Path, name: str) -> list[str]:
    return [
        f"--data={folder.absolute() / name}",
        f"--credentials={folder.absolute() / CREDENTIALS}",
    ]


async def _asked(reader: StreamReader, writer: StreamWriter, request: str, expected: bytes) -> bool:
    try:
        writer.write(request.encode())
        return await reader.readexactly(len(expected)) == expected
    finally:
        writer.close()
