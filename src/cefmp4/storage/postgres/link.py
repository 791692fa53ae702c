"""The connections to Postgres: a few of them, each request bounded, and one that only listens.

All driver errors come out as ours. An outage fails a request at once: whoever asks knows better
than a pool how long that may be tried again."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection, sql
from psycopg.abc import Params, PQGen, QueryNoTemplate
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    PermanentError,
    ServerUnreachableError,
    StoreFullError,
)
from cefmp4.reachability import POSTGRES, level_of
from cefmp4.retry import Backoff
from cefmp4.storage.postgres import errors

log = structlog.get_logger()
Row: TypeAlias = DictRow
Connection: TypeAlias = AsyncConnection[Row]
Failure: TypeAlias = asyncio.Future[Exception]
RV = TypeVar("RV")

QUIET_S = 10.0  # so long without a notification, and we ask whether the server is still there
PAUSES = Backoff(first_s=0.1, cap_s=5.0)
_CLOSING_S = 2.0
_REQUESTS = "requests"  # all are one right for health checks
# Of a process that hangs in the midst of a transaction, the locks are let go.
_IDLE = sql.SQL("SET idle_in_transaction_session_timeout = {}")
_IDLE_LIMITS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresConfig:
    """`timeout_s` is for a connection to be had or made, and for each answer."""

    url: str = field(repr=False)
    pool_size: int = 5
    timeout_s: float = 30.0


class Postgres:
    """Use `open_postgres`. No request is made before it is asked for. Rows are dictionaries."""

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._address = _completed(config)
        self._waiting: dict[Failure, Exception | None] = {}  # with what keeps them waiting
        self._in_use = 0
        self._pool: AsyncConnectionPool[_BoundedConnection] = AsyncConnectionPool(
            self._address,
            connection_class=_BoundedConnection,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "prepare_threshold": None,  # poolers between us and the server lose them
                "on_failure": self._tell_waiting,
                "limit_s": config.timeout_s,
            },
            min_size=0,
            max_size=config.pool_size,
            timeout=config.timeout_s,
            reconnect_timeout=0,  # it would try for minutes, and tell nobody why
            check=AsyncConnectionPool.check_connection,
            name="cefmp4",
            open=False,
        )

    def __repr__(self) -> str:
        known = self._pool.get_stats()
        return f"<Postgres {known.get('pool_size', 0)} of {self._config.pool_size} connections>"

    async def fetch(self, query: QueryNoTemplate, params: Params | None = None) -> list[Row]:
        async with self.connection() as connection:
            return await (await connection.execute(query, params)).fetchall()

    async def execute(self, query: QueryNoTemplate, params: Params | None = None) -> int:
        """How many rows it touched."""
        async with self.connection() as connection:
            return (await connection.execute(query, params)).rowcount

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """All of it or nothing. Take no second connection inside, and do nothing else there that
        may take long: the server ends one that it hears nothing of for twice `timeout_s`."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Each statement for itself."""
        with self._translating():
            connection = await self._take()
            self._in_use += 1
            try:
                yield connection
            finally:
                self._in_use -= 1
                await self._pool.putconn(connection)

    async def listen(self, channel: str) -> AsyncGenerator[str, None]:
        """The payloads of what is notified there, on a connection of its own, without end. An empty
        one comes after each connect, also the first: nobody tells what was missed before."""
        failures = 0
        while True:
            try:
                async with aclosing(self._notified(channel)) as payloads:
                    async for payload in payloads:
                        failures = 0
                        yield payload
            except CefError as error:
                log.log(level_of(error), "no notifications can come", reason=str(error))
            failures += 1
            await asyncio.sleep(PAUSES.wait_s(failures))

    async def _notified(self, channel: str) -> AsyncGenerator[str, None]:
        """Until it is lost."""
        with self._translating():
            connection = await _BoundedConnection.connect(
                self._address, autocommit=True, limit_s=self._config.timeout_s
            )
            async with connection:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                POSTGRES.answered()
                yield ""
                while True:
                    async for notification in connection.notifies(timeout=QUIET_S, stop_after=1):
                        yield notification.payload
                    await connection.execute("")

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close(_CLOSING_S)

    async def _take(self) -> "_BoundedConnection":
        """The pool tells nobody why it has none: we hear that from the connection itself."""
        taking = asyncio.create_task(self._pool.getconn(), name="take a connection")
        failure: Failure = asyncio.get_running_loop().create_future()
        self._waiting[failure] = None
        try:
            either: set[asyncio.Future[Any]] = {taking, failure}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                raise failure.result()
            return taking.result()
        except PoolTimeout:
            raise self._waiting[failure] or self._why_none() from None
        except BaseException:
            await self._leave(taking)
            raise
        finally:
            del self._waiting[failure]

    def _why_none(self) -> CefError:
        if self._in_use < self._config.pool_size:
            return _NoAnswerError(self._config.timeout_s)
        return ServerUnreachableError(  # it is not: we are busy
            f"the {self._in_use} connections to Postgres were in use all the time",
            hint="raise POSTGRES_POOL_SIZE, or POSTGRES_TIMEOUT",
        )

    async def _leave(self, taking: asyncio.Task["_BoundedConnection"]) -> None:
        taking.cancel()
        await asyncio.wait({taking})
        if not taking.cancelled() and taking.exception() is None:
            await self._pool.putconn(taking.result())

    def _tell_waiting(self, error: Exception) -> None:
        """Where the server has no connection left to give, one of ours may still become free."""
        may_wait = self._pool.get_stats().get("pool_size", 0) > 1 and errors.is_full_house(error)
        for failure in self._waiting:
            self._waiting[failure] = error
            if not may_wait and not failure.done():
                failure.set_result(error)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            ours = errors.translated(error)
            self._note(ours)
            raise ours from error
        except UnicodeEncodeError as error:
            raise PermanentError(f"Postgres takes UTF-8 only: {error.reason}") from None
        except _NoAnswerError as error:
            self._note(error)
            raise
        POSTGRES.allowed(_REQUESTS)

    def _note(self, error: CefError) -> None:
        if isinstance(error, ServerUnreachableError | StoreFullError):
            POSTGRES.failed(error)
            return
        POSTGRES.answered()
        if isinstance(error, AccessDeniedError):
            POSTGRES.refused(_REQUESTS, error)


class _BoundedConnection(AsyncConnection[Row]):
    """`on_failure` hears why one could not be made."""

    _limit_s: float | None = None

    @classmethod
    async def connect(  # type: ignore[override]  # has two options more
        cls,
        conninfo: str = "",
        *,
        limit_s: float,
        on_failure: Callable[[Exception], None] = lambda _error: None,
        **options: Any,
    ) -> Self:
        try:
            connection = await super().connect(conninfo, **options)
            connection._limit_s = limit_s
            async with AsyncExitStack() as unfinished:
                unfinished.push_async_callback(connection.close)
                await connection.execute(_IDLE.format(f"{_IDLE_LIMITS * limit_s:.0f}s"))
                unfinished.pop_all()
        except (psycopg.Error, CefError) as error:
            on_failure(error)
            raise
        return connection

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Each answer passes here. The driver has the server give up what we no longer wait for."""
        try:
            async with asyncio.timeout(self._limit_s if timeout is None else None):
                return await super().wait(gen, interval, timeout)
        except TimeoutError:
            raise _NoAnswerError(self._limit_s or 0) from None


class _NoAnswerError(ServerUnreachableError):
    """Of ours, while others of its kind that pass through here are of somebody else."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(
            f"Postgres did not answer within {limit_s:g} s",
            hint="POSTGRES_TIMEOUT is how long we wait",
        )


def _check_place(given: Mapping[str, Any]) -> None:
    """Where a password was not escaped, the driver would go and look for such a host, and tell of
    it."""
    ports = str(given.get("port") or "").split(",")
    if "@" in str(given.get("host") or "") or not all(re.fullmatch(r"\d*", port) for port in ports):
        raise errors.unusable_address()


def _completed(config: PostgresConfig) -> str:
    """Its address, with what we want of a connection where it does not say otherwise."""
    try:
        given = conninfo_to_dict(config.url)
        usual: dict[str, str | int | None] = {
            "application_name": "cefmp4",
            "connect_timeout": max(2, round(config.timeout_s)),  # one second would be two
            "tcp_user_timeout": round(config.timeout_s * 1000),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        _check_place(given)
        return make_conninfo("", **usual | given)
    except psycopg.Error:
        raise errors.unusable_address() from None


@asynccontextmanager
async def open_postgres(config: PostgresConfig) -> AsyncIterator[Postgres]:
    """Raises SettingsError for an address that is none. It makes no connection yet."""
    postgres = Postgres(config)
    await postgres.open()
    try:
        yield postgres
    finally:
        await postgres.close()
