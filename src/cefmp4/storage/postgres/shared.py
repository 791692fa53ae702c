"""One pool of each process, whoever uses it: POSTGRES_POOL_SIZE is for all of them together."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from cefmp4.config.settings import Settings
from cefmp4.errors import PermanentError, SettingsError, TablesMissingError
from cefmp4.retry import at_start
from cefmp4.storage.postgres.link import Postgres, PostgresConfig

T = TypeVar("T")


@dataclass(slots=True)
class _Opened:
    postgres: Postgres
    users: int = 0


_OPENED: dict[PostgresConfig, _Opened] = {}


@asynccontextmanager
async def shared_postgres(settings: Settings) -> AsyncIterator[Postgres]:
    """Closed when the last of its users leaves. Raises SettingsError where DATABASE_URL is not
    set, or is no address."""
    config = _config_of(settings)
    opened = _OPENED.get(config) or _Opened(Postgres(config))
    _OPENED[config] = opened
    opened.users += 1
    try:
        await opened.postgres.open()
        yield opened.postgres
    finally:
        opened.users -= 1
        if not opened.users:
            del _OPENED[config]
            await opened.postgres.close()


async def when_reachable(settings: Settings, ask: Callable[[], Awaitable[T]]) -> T:
    """At a start: waits for the server as long as STARTUP_TIMEOUT_SECONDS allows. What it refuses
    then, settings heal."""

    async def asked() -> T:
        try:
            return await ask()
        except PermanentError as error:
            raise SettingsError(error.args[0], hint=error.hint or "check DATABASE_URL") from error

    seconds = settings.startup_timeout_seconds
    return await at_start(asked, server="Postgres", setting="DATABASE_URL", seconds=seconds)


@contextmanager
def while_running() -> Iterator[None]:
    """A database that is gone after the start is one that somebody restores."""
    try:
        yield
    except SettingsError as error:
        raise TablesMissingError(error.args[0], hint=error.hint) from error


def _config_of(settings: Settings) -> PostgresConfig:
    return PostgresConfig(
        url=settings.needed_database_address,
        pool_size=settings.postgres_pool_size,
        timeout_s=settings.postgres_timeout,
    )
