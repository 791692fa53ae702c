"""A real Postgres for tests, as `cefmp4 up` starts it, but on a port of loopback, with a user who
has a password and no rights but over the databases of the tests. Each test gets a database."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from tests.support.ports import free_port

from cefmp4.embedded.postgres_server import postgres_process
from cefmp4.embedded.sockets import POSTGRES_SOCKET
from cefmp4.embedded.state import credentials_in, database_url
from cefmp4.storage.postgres.link import Postgres, PostgresConfig, open_postgres

START_S = 60.0
USER = "recorder"
PASSWORD = "of-the-tests only/@"  # with what must be escaped
_QUOTED = "of-the-tests%20only%2F%40"
# Other people's Postgres has a port. Its safety from power cuts costs the tests minutes.
_ON_A_PORT = """
import sys
from cefmp4.embedded import postgres_server as server
port = sys.argv.pop(1)
server._HBA += "host all all 127.0.0.1/32 scram-sha-256\\n"
server._OPTIONS |= {"listen_addresses": "127.0.0.1", "port": port, "fsync": "off"}
server.main()
"""


class PostgresServer:
    """It keeps port, users and data over a restart."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        credentials_in(folder)
        self.folder = folder
        self.port = free_port()
        self.process = postgres_process(folder)
        self.process._command[:2] = ["-c", _ON_A_PORT, str(self.port)]
        socket = folder / POSTGRES_SOCKET
        socket.symlink_to(socket.with_name(f".s.PGSQL.{self.port}"))

    async def start(self) -> None:
        self.process.start()
        await self.process.ready(START_S)
        if not await self.ask("SELECT 1 FROM pg_roles WHERE rolname = %s", [USER]):
            await self.say(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(USER), PASSWORD)
            )

    async def stop(self) -> None:
        if self.process.is_running:
            self.resume()
        await self.process.stop()

    def kill(self) -> None:
        """kill -9 of the first of its processes; the others follow by themselves."""
        self.process.kill()

    def pause(self) -> None:
        """Nobody is let in any more; who is in already is served."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    async def new_database(self, owner: str = USER) -> str:
        name = f"test_{secrets.token_hex(6)}"
        await self.say(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(*map(sql.Identifier, (name, owner)))
        )
        return name

    def url(self, database: str, *, user: str = USER, password: str = _QUOTED) -> str:
        """As people have it in DATABASE_URL."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def own_url(self, database: str) -> str:
        """Of its administrator, on its socket."""
        return database_url(self.folder).replace("/cefmp4?", f"/{database}?")

    async def ask(self, query: Any, params: Any = None, database: str = "postgres") -> list[Any]:
        """As its administrator."""
        async with await psycopg.AsyncConnection.connect(
            self.own_url(database), autocommit=True
        ) as connection:
            cursor = await connection.execute(query, params)
            return await cursor.fetchall() if cursor.description else []

    async def say(self, statement: Any, database: str = "postgres") -> None:
        await self.ask(statement, database=database)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Shared: take a `new_database()`, and a server of your own to hurt one. It belongs to no event
    loop, so that no test ends it with its own."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest_asyncio.fixture
async def postgres_url(postgres_server: PostgresServer) -> str:
    """An empty database, and a user who owns that and nothing else."""
    return postgres_server.url(await postgres_server.new_database())


@pytest_asyncio.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Postgres]:
    async with open_postgres(PostgresConfig(url=postgres_url, timeout_s=10)) as opened:
        yield opened
