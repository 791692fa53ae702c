"""Another user of the machine who wants to be one of the servers that `cefmp4 up` starts, or to be
told what only they are told."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from redis.asyncio import Redis
from tests.support.other_user import (
    OTHER_UID,
    folder_for_all,
    needs_two_users,
    run_as_other,
    start_as_other,
)
from tests.support.ports import free_port
from tests.support.service import reached
from tests.support.terminal import cefmp4, environment, up

from cefmp4.embedded.bucket import make_bucket
from cefmp4.embedded.sockets import users_listening_on
from cefmp4.embedded.state import Connection, load_connection, new_credentials, own, published
from cefmp4.embedded.supervisor import EmbeddedServers, embedded_servers
from cefmp4.errors import ServerUnreachableError, SettingsError

pytestmark = [pytest.mark.integration, needs_two_users]

READY_S = 20.0

# Takes every port it is told of, and those that our servers name in their arguments, whenever one
# is free, and prints what it is sent there.
IMPOSTOR = """
import contextlib, glob, select, socket, sys
parent, ports, taken = sys.argv[1], {int(port) for port in sys.argv[2:]}, {}

def is_of(folder):
    return open(f"{folder}/stat").read().rpartition(")")[2].split()[1] == parent

def look_around():
    for folder in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            if is_of(folder):
                for word in open(f"{folder}/cmdline").read().split("\\0"):
                    if word.startswith("--port="):
                        ports.add(int(word.partition("=")[2]))

look_around()
print("ready", flush=True)
while True:
    look_around()
    for port in ports - taken.keys():
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            listener.close()
            continue
        taken[port] = listener
        print("took", port, flush=True)
    for listener in select.select(list(taken.values()), [], [], 0.002)[0]:
        client, _ = listener.accept()
        client.settimeout(1)
        with contextlib.suppress(OSError):
            print("was sent", client.recv(4096), flush=True)
        client.close()
"""
CONNECT = """
import socket, sys
path = sys.argv[1]
client = socket.socket(socket.AF_UNIX)
client.connect(path)
client.sendall(b"PING\\r\\n")
print(client.recv(100))
"""
READ_PROCESSES = """
import contextlib, sys
for pid in sys.argv[1:]:
    for name in ("cmdline", "environ"):
        with contextlib.suppress(PermissionError):
            print(open(f"/proc/{pid}/{name}").read().replace("\\0", " "))
"""


@contextmanager
def impostor(*ports: int) -> Iterator[list[str]]:
    """Its lines, filled when it ends."""
    lines: list[str] = []
    process = start_as_other(IMPOSTOR, str(os.getpid()), *map(str, ports))
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        yield lines
    finally:
        process.kill()
        with process:
            lines += process.stdout.read().splitlines()  # some of it may be in our buffer already


@asynccontextmanager
async def running(state_dir: Path) -> AsyncIterator[EmbeddedServers]:
    async with embedded_servers(
        state_dir, want_redis=True, want_s3=True, bucket="films"
    ) as servers:
        watching = asyncio.create_task(servers.watch(), name="watch")
        try:
            yield servers
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def has_taken(*ports: int) -> bool:
    async def all_are() -> bool:
        return all(users_listening_on(port) == {OTHER_UID} for port in ports)

    return await reached(all_are, READY_S)


def port_of(connection: Connection) -> int:
    return urlsplit(connection.s3_endpoint_url or "").port or 0


def secrets_of(state_dir: Path) -> list[str]:
    keys = json.loads((state_dir / "credentials.json").read_text())
    return [keys["redis_password"], keys["s3_secret_access_key"]]


async def work_with(connection: Connection) -> None:
    async with Redis.from_url(connection.redis_url or "") as redis:
        assert await redis.ping()
    await make_bucket(
        connection.s3_endpoint_url or "",
        "more-films",
        access_key=connection.s3_access_key_id or "",
        secret_key=connection.s3_secret_access_key or "",
        region="us-east-1",
    )


async def test_who_waits_for_a_server_to_die_gets_neither_its_place_nor_a_byte() -> None:
    with folder_for_all() as folder:
        async with running(folder / "state") as servers:
            former = [server.pid for server in servers.servers]
            with impostor(port_of(servers.connection)) as heard:
                for pid in former:
                    os.kill(pid, signal.SIGKILL)

                async def are_new() -> bool:
                    return all(
                        server.is_running and server.pid != pid
                        for server, pid in zip(servers.servers, former, strict=True)
                    )

                assert await reached(are_new, READY_S)
                for server in servers.servers:
                    await server.ready(READY_S)
                await work_with(servers.connection)
            assert heard == []


async def test_who_has_the_port_of_the_last_start_is_not_taken_for_the_server() -> None:
    with folder_for_all() as folder:
        async with running(folder / "state") as servers:
            port = port_of(servers.connection)
        ports = {"redis": free_port(), "s3": port}  # as older versions remembered them
        (folder / "state" / "ports.json").write_text(json.dumps(ports))
        with impostor(*ports.values()) as heard:
            assert await has_taken(*ports.values())
            async with running(folder / "state") as servers:
                assert port_of(servers.connection) != port
                await work_with(servers.connection)
        assert sorted(heard) == sorted(f"took {port}" for port in ports.values())


async def test_another_user_reaches_no_socket_of_the_embedded_valkey() -> None:
    with folder_for_all() as folder:
        folder.chmod(0o755)
        async with running(folder / "state") as servers:
            path = unquote(urlsplit(servers.connection.redis_url or "").path)
            attack = run_as_other(CONNECT, path)
            (folder / "state").chmod(0o755)  # even where its user opened the folder to others
            second = run_as_other(CONNECT, path)
    assert "PermissionError" in attack.errors, attack
    assert "PermissionError" in second.errors, second


async def test_another_user_finds_no_secret_in_arguments_and_environments() -> None:
    with folder_for_all() as folder:
        async with running(folder / "state") as servers:
            pids = [str(server.pid) for server in servers.servers]
            attack = run_as_other(READ_PROCESSES, *pids)
            assert "valkey" in attack.output, attack
            assert "swift_server" in attack.output, attack
            assert [text for text in secrets_of(folder / "state") if text in attack.output] == []


async def test_a_command_does_not_talk_to_who_took_the_port_of_up() -> None:
    with folder_for_all() as folder:
        port = free_port()
        keys = new_credentials()
        state_dir = folder / "state"
        connection = Connection(
            s3_endpoint_url=f"http://127.0.0.1:{port}",
            s3_access_key_id=keys.s3_access_key_id,
            s3_secret_access_key=keys.s3_secret_access_key,
            s3_region_name="us-east-1",
            bucket="films",
            pid=os.getpid(),
        )
        async with own(state_dir):
            with published(state_dir, connection):
                with pytest.raises(ServerUnreachableError, match="not there any more"):
                    load_connection(state_dir)
                with impostor(port) as heard:
                    assert await has_taken(port)
                    with pytest.raises(SettingsError, match=f"another user .* on port {port}"):
                        load_connection(state_dir)
                    answer = await cefmp4(folder, "doctor", STATE_DIR=str(state_dir))
        assert answer.code == 2
        assert f"port {port}" in answer.err
    assert heard == [f"took {port}"]


async def test_a_worker_ends_with_the_up_whose_port_another_user_takes() -> None:
    with folder_for_all() as folder:
        async with up(folder, PROM_PORT="0") as owner:
            await owner.says("Drop a recording into the folder")
            connection = load_connection(folder / ".cefmp4")
            assert connection
            assert f"keys       {folder}/.cefmp4/credentials.json" in owner.said
            assert [text for text in secrets_of(folder / ".cefmp4") if text in owner.said] == []
            async with worker(folder) as process:
                with impostor(port_of(connection)) as heard:
                    os.kill(connection.pid, signal.SIGKILL)
                    assert await has_taken(port_of(connection))
                    async with asyncio.timeout(READY_S):
                        assert await process.wait() == 3
        assert heard == [f"took {port_of(connection)}"]


ALONGSIDE = """
import socket, sys, time
for family, address in ((socket.AF_INET6, "::1"), (socket.AF_INET6, "::"), (socket.AF_INET, "")):
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind((address, int(sys.argv[1])))
        listener.listen()
    except OSError:
        pass  # this machine has no such address
print("done", flush=True)
time.sleep(60)
"""


async def test_who_listens_on_the_same_port_of_other_addresses_stops_no_command() -> None:
    with folder_for_all() as folder:
        async with running(folder / "state") as servers:
            port = port_of(servers.connection)
            beside = start_as_other(ALONGSIDE, str(port))
            assert beside.stdout
            try:
                assert beside.stdout.readline() == "done\n"
                assert load_connection(folder / "state") == servers.connection
            finally:
                beside.kill()
                beside.communicate()


@asynccontextmanager
async def worker(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """That is ready for jobs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cefmp4", "worker"),
        cwd=folder,
        env=environment({"WORKER_PORT": "0"}),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    try:
        async with asyncio.timeout(READY_S):
            while b"ready for jobs" not in await process.stderr.readline():
                assert not process.stderr.at_eof()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
