"""The connection to SurrealDB: a server, or its engine inside of this process. Statements are
constant texts; what comes from outside is bound to them as variables, never written into them."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from surrealdb import RecordID, ServerError
from surrealdb.errors import parse_rpc_error

from cefmp4.config.settings import Settings
from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    PermanentError,
    ServerUnreachableError,
    SettingsError,
    TransientError,
)
from cefmp4.reachability import SURREALDB
from cefmp4.retry import Backoff, bounded, for_a_while
from cefmp4.storage.surreal.client import Client, client_of
from cefmp4.storage.surreal.errors import (
    FOREIGN_ERRORS,
    ConflictError,
    ConnectionLostError,
    InUseError,
    failure_of,
    translated,
)

log = structlog.get_logger()

__all__ = ["RecordID", "SurrealConfig", "SurrealLink", "define", "open_surreal", "surreal_config"]

CONNECT_TIMEOUT_S = 5.0
ENGINE_TIMEOUT_S = 60.0  # to open and to close a database that has grown
REQUEST_TIMEOUT_S = 30.0  # for thousands of rows on a busy server
CLOSE_TIMEOUT_S = 1.0
ATTEMPTS = 12
PAUSES = Backoff(first_s=0.01, cap_s=1.0)  # conflicts are over as soon as the other is done


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrealConfig:
    endpoint: str
    namespace: str
    database: str
    username: str = ""
    password: str = field(default="", repr=False)
    patience_s: float = 0.0  # for the first answer

    @property
    def place(self) -> str:
        return f"{self.namespace}/{self.database}"

    @property
    def is_embedded(self) -> bool:
        return not self.endpoint.startswith(("ws://", "wss://"))

    @property
    def folder(self) -> Path | None:
        """Of an embedded database that outlives its process."""
        place = self.endpoint.partition("://")[2]
        return Path(place.partition("?")[0]) if self.is_embedded and place else None


def surreal_config(settings: Settings) -> SurrealConfig:
    password = settings.surreal_password
    return SurrealConfig(
        endpoint=settings.surreal_endpoint or "",
        namespace=settings.surreal_namespace,
        database=settings.surreal_database,
        username=settings.surreal_username or "",
        password=password.get_secret_value() if password else "",
        patience_s=settings.startup_timeout_seconds,
    )


class SurrealLink:
    """Connects when it is asked something, and again after the connection was lost."""

    def __init__(self, config: SurrealConfig) -> None:
        self.config = config
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        # Of the server, the namespace, the database: nobody says which one has the user.
        self._levels: list[dict[str, Any]] = [
            {},
            {"namespace": config.namespace},
            {"namespace": config.namespace, "database": config.database},
        ]

    def __repr__(self) -> str:
        return f"<SurrealLink {self.config.endpoint} {self.config.place}>"

    async def query(self, text: str, /, **variables: Any) -> list[Any]:
        """What each statement answers. All of it may be done twice: where the connection is lost,
        nobody knows whether it was done."""
        return await bounded(
            lambda: self._query(text, variables),
            server="surrealdb",
            attempts=ATTEMPTS,
            on=(ConflictError, ConnectionLostError),
            backoff=PAUSES,
        )

    async def reach(self) -> None:
        """Waits for the first answer. Raises SettingsError where no patience helps."""

        def tell(error: BaseException) -> None:
            log.warning("waiting for SurrealDB", reason=str(error))

        async def ask() -> list[Any]:
            return await self.query("RETURN 1")

        try:
            await for_a_while(ask, seconds=self.config.patience_s, on=(TransientError,), tell=tell)
        except TransientError as error:
            hint = error.hint or "check SURREAL_ENDPOINT"
            raise ServerUnreachableError(error.args[0], hint=hint) from error
        except AccessDeniedError as error:
            raise SettingsError(error.args[0], hint=error.hint) from error
        except PermanentError as error:
            raise SettingsError(f"SURREAL_ENDPOINT={self.config.endpoint}: {error}") from error

    async def version(self) -> str:
        """As it calls itself."""
        await self.query("RETURN 1")
        client = await self._connected()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await client.version()
        except FOREIGN_ERRORS as error:
            raise translated(error) from error

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _closed(client)

    async def _query(self, text: str, variables: dict[str, Any]) -> list[Any]:
        try:
            client = await self._connected()
            statements = await self._answers(client, text, variables)
        except (CefError, *FOREIGN_ERRORS) as error:
            ours = translated(error)
            if isinstance(ours, AccessDeniedError):
                SURREALDB.refused("query", ours)
            elif isinstance(ours, ServerUnreachableError):
                SURREALDB.failed(ours)
            raise ours from error
        SURREALDB.allowed("query")
        return [one["result"] for one in statements]

    async def _answers(
        self, client: Client, text: str, variables: dict[str, Any]
    ) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                answer = await client.query_raw(text, variables)
            if told := answer.get("error"):
                raise parse_rpc_error(told)
            statements: list[dict[str, Any]] = answer["result"]
            if error := failure_of(statements):
                raise error
        except (CefError, *FOREIGN_ERRORS) as error:
            if isinstance(translated(error), ServerUnreachableError):
                await self._drop(client)
            raise
        return statements

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> Client:
        is_embedded = self.config.is_embedded
        client = client_of(self.config.endpoint, is_embedded=is_embedded)
        try:
            async with asyncio.timeout(ENGINE_TIMEOUT_S if is_embedded else CONNECT_TIMEOUT_S):
                await client.connect()
                if self.config.username and not is_embedded:
                    await self._sign_in(client)
                await client.use(self.config.namespace, self.config.database)
        except BaseException:
            await _closed(client)
            raise
        return client

    async def _sign_in(self, client: Client) -> None:
        user = {"username": self.config.username, "password": self.config.password}
        for level in list(self._levels):
            try:
                await client.signin({**level, **user})
            except ServerError as error:
                refused = translated(error)
                if not isinstance(refused, AccessDeniedError):
                    raise
            else:
                self._levels.sort(key=lambda one: one is not level)  # the next time at once
                return
        raise AccessDeniedError(
            f"SurrealDB knows no user SURREAL_USERNAME={self.config.username} with this "
            "SURREAL_PASSWORD",
            is_stranger=True,
        )

    async def _drop(self, client: Client) -> None:
        """What is in the engine of this process would be lost with its connection."""
        if self._client is client and not self.config.is_embedded:
            self._client = None
            await _closed(client)


async def _closed(client: Client) -> None:
    socket = client.socket
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S if socket else ENGINE_TIMEOUT_S):
            await client.close()
    except FOREIGN_ERRORS as error:
        log.debug("a connection was not closed in peace", reason=str(error))
        if socket is not None:
            socket.transport.abort()


@asynccontextmanager
async def open_surreal(config: SurrealConfig) -> AsyncIterator[SurrealLink]:
    """Once it has answered. Raises ServerUnreachableError and SettingsError."""
    async with _shared_link(config) if config.is_embedded else _own_link(config) as link:
        await link.reach()
        yield link


@asynccontextmanager
async def _own_link(config: SurrealConfig) -> AsyncIterator[SurrealLink]:
    link = SurrealLink(config)
    try:
        yield link
    finally:
        await link.close()


async def define(link: SurrealLink, *indexes: str) -> None:
    """So that a question does not read all rows. Where none can be made, it does."""
    try:
        for index in indexes:
            await link.query(index)
    except PermanentError as error:
        log.info("no index: some questions read all rows", reason=str(error))


@dataclass(slots=True)
class _Shared:
    """The engine in this process: all who use its database have one connection."""

    link: SurrealLink
    lock: int | None
    users: int = 0


_shared: dict[tuple[str, str], _Shared] = {}


@asynccontextmanager
async def _shared_link(config: SurrealConfig) -> AsyncIterator[SurrealLink]:
    which = (config.endpoint, config.place)
    if which not in _shared:
        _shared[which] = _Shared(SurrealLink(config), _locked(config))
    shared = _shared[which]
    shared.users += 1
    try:
        yield shared.link
    finally:
        shared.users -= 1
        if not shared.users:
            del _shared[which]
            try:
                await shared.link.close()
            finally:
                if shared.lock is not None:
                    os.close(shared.lock)


def _locked(config: SurrealConfig) -> int | None:
    """Two engines at one folder would damage it, and none of them looks."""
    if config.folder is None:
        return None
    path = config.folder.with_name(f"{config.folder.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        named = f"SURREAL_ENDPOINT={config.endpoint}"
        raise SettingsError(f"{named}: {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise InUseError(
            f"SURREAL_ENDPOINT={config.endpoint}: another process has this database open",
            hint="end it, or start a server of SurrealDB and name its ws:// address everywhere",
        ) from None
    return lock
