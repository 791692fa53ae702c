"""The clients of the library, mended where one request could harm another."""

import asyncio
from typing import Any, TypeAlias

from surrealdb import AsyncEmbeddedSurrealConnection, AsyncWsSurrealConnection
from surrealdb.cbor import CBORDecoder, CBORTag, loads
from surrealdb.data.cbor import tag_decoder
from surrealdb.request_message.message import RequestMessage
from websockets.exceptions import ConnectionClosed

from cefmp4.storage.surreal.errors import FOREIGN_ERRORS, ConnectionLostError


class Unreadable:
    """Stands for a value of a kind that this version of the library does not know."""

    def __repr__(self) -> str:
        return "<a value that cannot be read>"


class ServerClient(AsyncWsSurrealConnection):
    """The library's own cancels everybody who waits, as if they had been told to stop, when the
    connection breaks, when it cannot read one value, and when an answer comes to a request that was
    given up; then nobody listens any more."""

    async def _recv_task(self) -> None:
        reason = ""
        try:
            async for data in self.socket:
                self._deliver(_decoded(data))
        except ConnectionClosed as error:
            reason = str(error)
        except FOREIGN_ERRORS as error:
            reason = f"what it sends is no answer: {error}"
        finally:
            lost = [waiting for waiting in self.qry.values() if not waiting.done()]
            for waiting in lost:
                waiting.set_exception(ConnectionLostError(f"SurrealDB is out of reach: {reason}"))

    def _deliver(self, answer: dict[str, Any]) -> None:
        waiting = self.qry.get(answer.get("id") or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def _send(
        self, message: RequestMessage, process: str, bypass: bool = False
    ) -> dict[str, Any]:
        if self.recv_task is None or self.recv_task.done():
            raise ConnectionLostError
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.qry[message.id] = waiting
        try:
            await self.socket.send(message.WS_CBOR_DESCRIPTOR)
            answer = await waiting
        except ConnectionClosed as error:
            raise ConnectionLostError(f"SurrealDB is out of reach: {error}") from error
        finally:
            self.qry.pop(message.id, None)
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # else asyncio tells of it, where it was noticed by the sending
        if not bypass:
            self.check_response_for_error(answer, process)
        return answer


class EngineClient(AsyncEmbeddedSurrealConnection):
    """One request at a time: of two that change a row at the same moment, the engine confirms both
    and keeps one, now and then."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._turn = asyncio.Lock()

    async def _send(
        self, message: RequestMessage, process: str, bypass: bool = False
    ) -> dict[str, Any]:
        async with self._turn:
            return await super()._send(message, process, bypass)


Client: TypeAlias = EngineClient | ServerClient


def client_of(endpoint: str, *, is_embedded: bool) -> Client:
    return EngineClient(endpoint) if is_embedded else ServerClient(endpoint)


def _decoded(data: bytes) -> dict[str, Any]:
    answer = loads(data, tag_hook=_tagged)
    if not isinstance(answer, dict):
        raise ValueError("it has no fields")
    return answer


def _tagged(decoder: CBORDecoder, tag: CBORTag, index: int | None = None) -> Any:
    try:
        return tag_decoder(decoder, tag, index)
    except (*FOREIGN_ERRORS, ArithmeticError, LookupError):
        return Unreadable()
