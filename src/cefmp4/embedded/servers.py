"""The two servers: how each is started, and how each shows that it is ready."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from cefmp4.embedded.process import ServerProcess
from cefmp4.embedded.state import CREDENTIALS, Credentials
from cefmp4.model.part import MIN_PART_BYTES


def valkey_process(
    folder: Path, port: int, credentials: Credentials, *, keep_open: Sequence[int] = ()
) -> ServerProcess:
    """Its data and log lie in `folder`, where the credentials are stored already."""

    async def answers() -> bool:
        # While it loads its data it answers too, but with an error.
        request = f"AUTH {credentials.redis_password}\r\nPING\r\n"
        return await _asked(port, request, b"+OK\r\n+PONG\r\n")

    return ServerProcess(
        "Valkey",
        ["-m", "cefmp4.embedded.valkey_server", *_place(folder, "redis", port)],
        log=folder / "redis.log",
        probe=answers,
        keep_open=keep_open,
    )


def swift_process(
    folder: Path,
    port: int,
    *,
    region: str,
    min_part_bytes: int = MIN_PART_BYTES,
    keep_open: Sequence[int] = (),
) -> ServerProcess:
    """Its data and log lie in `folder`, where the credentials are stored already."""

    async def answers() -> bool:
        request = "GET /healthcheck HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return await _asked(port, request, b"HTTP/1.1 200")

    command = [
        "-m",
        "cefmp4.embedded.swift_server",
        *_place(folder, "s3", port),
        f"--region={region}",
        f"--min-part-bytes={min_part_bytes}",
    ]
    return ServerProcess(
        "S3 server", command, log=folder / "s3.log", probe=answers, keep_open=keep_open
    )


def _place(folder: Path, name: str, port: int) -> list[str]:
    return [
        f"--data={folder.absolute() / name}",
        f"--credentials={folder.absolute() / CREDENTIALS}",
        f"--port={port}",
    ]


async def _asked(port: int, request: str, expected: bytes) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.encode())
        return await reader.readexactly(len(expected)) == expected
    finally:
        writer.close()
