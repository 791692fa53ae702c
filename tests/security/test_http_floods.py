"""Another user of this machine takes all connections there are, and more: the recording goes on,
probes are answered, and nobody's log is filled."""

import asyncio
import json
import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.http_port import LOOPBACK, open_port
from tests.support.other_user import needs_two_users, start_as_other
from tests.support.servers import SwiftServer
from tests.support.service import MIB, Service, open_site, reached

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(100)]

FEW = 256
CROWD = 900  # within the usual limit of 1,024 for itself
FLOOD = """
import select, socket, sys, time
port, crowd, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
head = " HTTP/1.1\\r\\nHost: localhost\\r\\n"
begun = ["", f"GET /{head}X: ", f"GET /events{head}\\r\\n", f"GET /assets/page.js{head}\\r\\n" * 9]
held, opened, until = {}, 0, time.monotonic() + seconds
poll = select.poll()
while time.monotonic() < until:
    while len(held) < crowd:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        one.settimeout(0.2)
        try:
            one.connect(("127.0.0.1", port))
            one.sendall(begun[opened % 4].encode())
        except OSError:
            one.close()
            break
        opened += 1
        held[one.fileno()] = one
        poll.register(one, select.POLLHUP | select.POLLERR | select.POLLRDHUP)
    for number, _ in poll.poll(50):
        poll.unregister(number)
        held.pop(number).close()
print(opened)
"""


def open_files(service: Service) -> int:
    return len(os.listdir(f"/proc/{service.pid}/fd"))


async def probes(service: Service, until: "asyncio.Task[object]") -> list[bool]:
    answers = []
    while not until.done():
        answers.append((await service._get("/healthz"))[0] == 200)
        await asyncio.sleep(0.1)
    return answers


async def record(path: Path) -> None:
    with await asyncio.to_thread(path.open, "wb") as file:
        for _ in range(10):
            await asyncio.to_thread(file.write, os.urandom(MIB))
            await asyncio.to_thread(file.flush)
            await asyncio.sleep(0.2)


@pytest.mark.alone
@needs_two_users
async def test_nobody_is_kept_from_uploading_by_connections(
    tmp_path: Path, s3_server: SwiftServer
) -> None:
    async with open_site(s3_server, tmp_path) as site:
        service = site.service
        await service.launch()
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
        await service.ready()
        before = open_files(service)
        attack = start_as_other(FLOOD, str(service.port), str(CROWD), "3")
        try:
            recording = asyncio.create_task(record(site.watched / "a.mp4"))
            answered = await probes(service, recording)
            most = open_files(service)
            assert await site.described({"a.mp4"}, 30) == set()
            told, errors = await asyncio.to_thread(attack.communicate, timeout=30)
        finally:
            attack.kill()
            attack.wait()
        assert attack.returncode == 0, errors
        assert int(told) > CROWD
        assert answered.count(True) >= 0.9 * len(answered), answered
        assert most < FEW - 60
        assert (await site.held("a.mp4")).faults(site.watched / "a.mp4") == []

        async def is_calm() -> bool:
            return open_files(service) <= before + 40  # its pools of connections may stay

        assert await reached(is_calm, 30)
        said = service.log.read_text()
        assert "Traceback" not in said
        assert len(said.splitlines()) < 100


@pytest.mark.alone
async def test_without_any_descriptor_left_it_waits_and_goes_on(
    tmp_path: Path, s3_server: SwiftServer
) -> None:
    """Accepting, opening, connecting and starting programs all fail for a while."""
    async with open_site(s3_server, tmp_path) as site:
        service = site.service
        await service.start()
        soft, hard = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        recording = asyncio.create_task(record(site.watched / "a.mp4"))
        await asyncio.sleep(0.5)
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (open_files(service) - 3, hard))
        (site.watched / "b.mp4").write_bytes(os.urandom(6 * MIB))
        answered = await probes(service, asyncio.create_task(asyncio.sleep(1)))
        assert answered
        assert service.is_running
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (soft, hard))
        await recording
        assert await site.described({"a.mp4", "b.mp4"}, 40) == set()
        assert await service.is_ready()
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
        assert [line for line in lines if "exception" in line] == []
        assert len(lines) < 100


async def test_a_crowd_from_one_address_costs_that_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cefmp4.web.listener.MAX_CONNECTIONS", 8)

    def come(port: int, address: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), 5, (address, 0))

    async with open_port(LOOPBACK) as port:
        with ExitStack() as stack:
            visitor = stack.enter_context(come(port.number, "127.0.0.3"))
            for _ in range(40):
                stack.enter_context(come(port.number, "127.0.0.2"))
                assert await port.status("/livez") == 200
            visitor.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await asyncio.to_thread(visitor.recv, 1000)
    assert answer.startswith(b"HTTP/1.1 200 ")
