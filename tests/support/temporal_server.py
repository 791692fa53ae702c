"""A real Temporal for tests, as `cefmp4 up` starts it: on a free port of loopback, with its data in
a folder. A namespace for each test keeps them apart."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from pydantic import SecretStr
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from tests.support.ports import free_port

from cefmp4.embedded.state import credentials_in
from cefmp4.embedded.temporal_server import temporal_process
from cefmp4.temporal.connect import EngineConfig, connect

CODEC_KEY = b"of-the-tests-only"
START_S = 30.0


@dataclass(frozen=True)
class JobPlace:
    """A namespace of its own in a Temporal."""

    address: str
    namespace: str

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "temporal_address": self.address,
            "temporal_namespace": self.namespace,
            "temporal_codec_key": SecretStr(CODEC_KEY.decode()),
        }

    async def connect(self) -> Client:
        """As workers do."""
        config = EngineConfig(address=self.address, namespace=self.namespace, codec_key=CODEC_KEY)
        return await connect(config, identity="one|1", is_lazy=False)


class TemporalServer:
    """It keeps its port and data over a restart."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        credentials_in(folder)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = temporal_process(folder, self.port)

    async def start(self) -> None:
        self.process.start()
        await self.process.ready(START_S)
        async with asyncio.timeout(START_S):
            while not await self._is_healthy():  # noqa: ASYNC110  # it listens a little earlier
                await asyncio.sleep(0.05)

    async def _is_healthy(self) -> bool:
        try:
            await Client.connect(self.address)
        except RuntimeError:
            return False
        return True

    async def stop(self) -> None:
        await self.process.stop()

    async def new_namespace(self) -> str:
        name = f"test-{secrets.token_hex(6)}"
        client = await Client.connect(self.address)
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(
                namespace=name, workflow_execution_retention_period=Duration(seconds=86400)
            )
        )
        return name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[TemporalServer]:
    """Shared: take a `new_namespace()`, and a server of your own to hurt one."""
    server = TemporalServer(tmp_path_factory.mktemp("temporal"))
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def job_place(temporal_server: TemporalServer) -> JobPlace:
    return JobPlace(temporal_server.address, await temporal_server.new_namespace())
