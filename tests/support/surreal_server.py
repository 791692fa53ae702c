"""A server of SurrealDB for tests: the engine of the Python package behind the protocol of the real
one, WebSocket and CBOR. Requests go to the engine one by one: it loses one of two changes to a row
at the same moment, now and then. So conflicts are ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from surrealdb import AsyncEmbeddedSurrealConnection, RecordID
from surrealdb.data.cbor import decode, encode
from tests.support.ports import free_port
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

CONFLICT = (
    "Failed to commit transaction due to a read or write conflict. This transaction can be retried"
)
NAMESPACE, DATABASE = "tests", "media"
USER, PASSWORD = "root", "s3cret-of-surreal"


def _refusal(text: str) -> dict[str, Any]:
    return {"error": {"code": -32000, "message": text}}


@dataclass
class SurrealServer:
    """`level`: where its one user is known: {} is the whole server, else with `ns` and `db`.
    Every so manieth query is refused as a conflict. It keeps its rows while it is stopped."""

    endpoint: str = "mem://"
    asks_for_user: bool = True
    level: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    signins: int = 0
    garbage: bytes = b""  # is sent instead of the next answer
    is_silent: bool = False  # it takes requests, and answers none
    conflict_every: int = 5  # queries
    queries: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _server: Server | None = None
    _engine: AsyncEmbeddedSurrealConnection | None = None

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        if self._engine is None:
            self._engine = AsyncEmbeddedSurrealConnection(self.endpoint)
            await self._engine.connect()
            await self._engine.use(NAMESPACE, DATABASE)
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            subprotocols=[Subprotocol("cbor")],
            max_size=None,
            reuse_port=True,
        )

    async def stop(self) -> None:
        """As when its process dies: connections break in mid-answer."""
        server, self._server = self._server, None
        if server is not None:
            for connection in list(server.connections):
                connection.transport.abort()
            server.close()
            await server.wait_closed()

    async def end(self) -> None:
        await self.stop()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    async def rows(self, text: str, /, **variables: Any) -> Any:
        """Of one statement, past the connections under test."""
        assert self._engine is not None
        async with self._turn:
            return await self._engine.query(text, variables)

    async def put(self, table: str, row_id: Any, row: dict[str, Any]) -> None:
        """Without an answer: it can take what it cannot give back."""
        await self.rows("CREATE $id CONTENT $row RETURN NONE", id=RecordID(table, row_id), row=row)

    async def _serve(self, connection: ServerConnection) -> None:
        known = not self.asks_for_user
        async with asyncio.TaskGroup() as group:
            with suppress(ConnectionClosed):
                async for message in connection:
                    assert isinstance(message, bytes)
                    request = decode(message)
                    if request["method"] == "signin":
                        self.signins += 1
                        known = self._knows(request["params"][0])
                        refused = _refusal("There was a problem with authentication")
                        answer = {"result": "a.b.c"} if known else refused
                    elif request["method"] == "use":
                        answer = {"result": None}
                    elif not known:
                        answer = _refusal("IAM error: Not enough permissions to do this")
                    elif request["method"] == "query" and self._has_conflict():
                        statement = {"status": "ERR", "result": CONFLICT, "time": "1ms"}
                        answer = {"result": [statement]}
                    else:
                        group.create_task(self._ask(connection, request["id"], message))
                        continue
                    await connection.send(encode({"id": request["id"], **answer}))

    def _knows(self, given: dict[str, str]) -> bool:
        place = {name: given[name] for name in ("ns", "db") if name in given}
        return (given.get("user"), given.get("pass"), place) == (USER, PASSWORD, self.level)

    def _has_conflict(self) -> bool:
        self.queries += 1
        return self.queries % self.conflict_every == 0

    async def _ask(self, connection: ServerConnection, request_id: str, message: bytes) -> None:
        assert self._engine is not None
        try:
            async with self._turn:
                answer = await self._engine._db.execute(message)
        except (RuntimeError, ValueError) as error:
            answer = encode({"id": request_id, **_refusal(str(error))})
        if self.is_silent:
            return
        garbage, self.garbage = self.garbage, b""
        with suppress(ConnectionClosed):
            await connection.send(garbage or answer)


@asynccontextmanager
async def serving_surreal(**changes: Any) -> AsyncIterator[SurrealServer]:
    server = SurrealServer(**changes)
    await server.start()
    try:
        yield server
    finally:
        await server.end()
