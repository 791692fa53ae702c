"""The port of the embedded S3 serves its owner, however many others knock."""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.other_user import OTHER_UID, needs_two_users, run_as_other, start_as_other
from tests.support.servers import SwiftServer

from cefmp4.embedded.sockets import listen_on_loopback, port_of, user_at
from cefmp4.recording.digests import crc_of
from cefmp4.storage.s3.store import open_s3_store

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="function")]

KNOCKERS, HELD = 3, 900  # more in all than the server takes at a time, and has in its queue
UPLOADED_S = 15.0  # beside them; without them some 0.1 s

KNOCK = """
import select, socket, sys
port, most = int(sys.argv[1]), int(sys.argv[2])
held, knocks, is_told = {}, 0, False
watch = select.poll()
while True:
    for fd, _ in watch.poll(0):
        watch.unregister(fd)
        held.pop(fd).close()
    if len(held) < most:
        client = socket.socket()
        client.settimeout(0.2)
        try:
            client.connect(("127.0.0.1", port))
            client.setblocking(False)
            held[client.fileno()] = client
            watch.register(client, select.POLLIN)
        except OSError:
            client.close()
        knocks += 1
    if not is_told and (knocks > 2 * most or len(held) == most):
        print("busy", flush=True)
        is_told = True
"""


@contextmanager
def knocking(port: int) -> Iterator[None]:
    attacks: list[subprocess.Popen[str]] = []
    try:
        for _ in range(KNOCKERS):
            attacks.append(start_as_other(KNOCK, str(port), str(HELD)))
        for attack in attacks:
            assert attack.stdout is not None
            assert attack.stdout.readline() == "busy\n"
        yield
    finally:
        for attack in attacks:
            attack.kill()
            attack.communicate()


@needs_two_users
async def test_thousands_of_connections_of_another_user_hold_up_no_upload(tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    server = SwiftServer(tmp_path)
    await server.start()
    try:
        bucket = await server.new_bucket()
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, knocking(server.port))
            async with asyncio.timeout(UPLOADED_S), open_s3_store(server.config(bucket)) as store:
                await store.put_object(
                    "a.mp4", data, content_type="video/mp4", metadata={}, crc64=crc_of(data)
                )
                assert await store.read("a.mp4") == data
    finally:
        await server.stop()


@needs_two_users
async def test_the_kernel_tells_whose_a_connection_is() -> None:
    with listen_on_loopback() as listener:
        port = port_of(listener)
        with socket.create_connection(("127.0.0.1", port)):
            server, client = listener.accept()
            assert user_at(client, server.getsockname()) == os.geteuid()
            server.close()
        program = (
            "import socket, sys\n"
            "client = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
            "print(client.recv(1))"
        )
        attack = asyncio.create_task(asyncio.to_thread(run_as_other, program, str(port)))
        server, client = await asyncio.to_thread(listener.accept)
        assert user_at(client, server.getsockname()) == OTHER_UID
        server.close()
        assert (await attack).output == "b''\n"
    assert user_at(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
