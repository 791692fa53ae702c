"""The Temporal of `up`: what it keeps, who reaches it, and where it talks to."""

import asyncio
import ipaddress
import os
import socket
import stat
import urllib.request
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil
import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from cefmp4.embedded import temporal_server
from cefmp4.embedded.state import Connection, load_connection
from cefmp4.embedded.supervisor import EmbeddedServers, embedded_servers
from cefmp4.errors import SettingsError
from cefmp4.model.job import JobInput, JobKind, JobSpec
from cefmp4.temporal.connect import EngineConfig, connect
from cefmp4.temporal.desk import Desk

pytestmark = pytest.mark.integration

READY_S = 30.0
SPEC = JobSpec(subject="kept", kind=JobKind.HLS, input=JobInput(key="a.mp4"))


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


def bringing(
    state_dir: Path, *, has_page: bool = False
) -> AbstractAsyncContextManager[EmbeddedServers]:
    return embedded_servers(
        state_dir,
        want_redis=False,
        want_s3=False,
        want_temporal=True,
        temporal_page=has_page,
        bucket="films",
    )


async def desk_of(connection: Connection) -> Desk:
    assert connection.temporal_address
    assert connection.temporal_codec_key
    key = connection.temporal_codec_key.encode()
    config = EngineConfig(address=connection.temporal_address, codec_key=key)
    return Desk(await connect(config, identity="test"))


async def test_ended_jobs_stay_listed_for_thirty_days(state_dir: Path) -> None:
    async with bringing(state_dir) as servers:
        client = await Client.connect(servers.connection.temporal_address or "")
        found = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace="default")
        )
    assert found.config.workflow_execution_retention_ttl.ToTimedelta().days == 30


async def test_it_keeps_port_key_and_jobs_over_a_kill_and_a_restart(state_dir: Path) -> None:
    async with bringing(state_dir) as servers:
        (server,) = servers.servers
        await (await desk_of(servers.connection)).submit(SPEC)
        server.kill()
        server.start()
        await server.ready(READY_S)
        assert await (await desk_of(servers.connection)).find(SPEC.id)
        former = servers.connection
    async with bringing(state_dir) as servers:
        assert servers.connection.temporal_address == former.temporal_address
        assert servers.connection.temporal_codec_key == former.temporal_codec_key
        assert not await (await desk_of(servers.connection)).submit(SPEC)


async def test_it_talks_to_nobody_but_this_machine(state_dir: Path) -> None:
    async with bringing(state_dir) as servers:
        (server,) = servers.servers
        process = psutil.Process(server.pid)
        ends = [end for one in process.net_connections() for end in (one.laddr, one.raddr) if end]
        environment = process.environ()
        assert process.children() == []
    assert ends
    assert all(ipaddress.ip_address(end.ip).is_loopback for end in ends)
    assert environment["TEMPORAL_VERSION_CHECK_DISABLED"] == "1"


async def test_its_data_is_its_users_alone_and_no_secret_is_in_its_arguments(
    state_dir: Path,
) -> None:
    async with bringing(state_dir) as servers:
        (server,) = servers.servers
        for path in (state_dir / "temporal").rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        told = [
            *psutil.Process(server.pid).cmdline(),
            *psutil.Process(server.pid).environ().values(),
        ]
        key = servers.connection.temporal_codec_key
        assert key
        assert not any(key in text for text in told)
        assert key not in repr(servers.connection)
        connection = load_connection(state_dir)
        assert connection
        assert connection.temporal_address == servers.connection.temporal_address


@pytest.mark.parametrize("has_page", [True, False])
async def test_its_page_is_there_only_where_it_is_wanted(state_dir: Path, has_page: bool) -> None:
    async with bringing(state_dir, has_page=has_page) as servers:
        url = servers.connection.temporal_page
        assert bool(url) == has_page
        if url:
            assert await asyncio.to_thread(_status, url) == 200
        else:
            listening = psutil.Process(servers.servers[0].pid).net_connections()
            ports = {one.laddr.port for one in listening if one.status == psutil.CONN_LISTEN}
            assert servers.connection.ports["Temporal"] + 1000 not in ports


async def test_who_has_the_port_of_its_page_does_not_keep_it_from_starting(state_dir: Path) -> None:
    async with bringing(state_dir, has_page=True) as servers:
        former = servers.connection.temporal_page
    assert former
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(former.rpartition(":")[2])))
        other.listen()
        async with bringing(state_dir, has_page=True) as servers:
            assert servers.connection.temporal_page != former


def _status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(answer.status)


async def test_who_has_the_port_of_the_last_start_is_not_taken_for_it(state_dir: Path) -> None:
    async with bringing(state_dir) as servers:
        port = servers.connection.ports["Temporal"]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        async with bringing(state_dir) as servers:
            assert servers.connection.ports["Temporal"] != port


def test_without_the_package_and_a_program_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"TEMPORAL_ADDRESS is not set.*not installed"):
        temporal_server.check_installed()
    program = tmp_path / "temporal"
    program.write_text("#!/bin/sh\n")
    os.chmod(program, 0o755)
    temporal_server.check_installed()
