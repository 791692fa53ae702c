"""The connection to Redis: bounded requests, what is published, and the only place that knows Redis
errors."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    PermanentError,
    ServerUnreachableError,
    SettingsError,
)
from cefmp4.log import redact
from cefmp4.reachability import REDIS
from cefmp4.retry import Backoff
from cefmp4.storage.redis.scripts import Script

log = structlog.get_logger()
Mend: TypeAlias = Callable[["RedisLink"], Awaitable[None]]

REQUEST_TIMEOUT_S = 5.0
PAGE = 500  # records per request and per turn of the event loop
MAX_CONNECTIONS = 16  # more requests than that wait their turn
QUIET_S = 10.0  # so long without a message, and we ask whether the server is still there
ANSWER_S = 5.0
PAUSES = Backoff(first_s=0.1, cap_s=5.0)

# The server is there but cannot serve now. Older servers put the word inside a script's error.
_UNAVAILABLE = re.compile(
    r"\b(READONLY|MISCONF|OOM|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOREPLICAS|UNBLOCKED)\b"
    r"|max number of clients"
)
_FOREIGN_ERRORS = (RedisError, OSError)  # OSError holds TimeoutError


class RedisLink:
    """`mend` is called where a key holds something else than we wrote, to throw that away; then the
    request is made again."""

    def __init__(self, client: Redis, mend: Mend | None = None) -> None:
        self._client = client
        self._mend = mend

    async def call(self, *words: str | bytes | int | float) -> Any:
        try:
            return await self._call(*words)
        except PermanentError as error:
            if self._mend is None or not _is_mistyped(error):
                raise
            await self._mend(RedisLink(self._client))  # or somebody else has just done it
            return await self._call(*words)

    async def _call(self, *words: str | bytes | int | float) -> Any:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                answer = await self._client.execute_command(*words)  # type: ignore[no-untyped-call]
        except NoScriptError:
            raise
        except _FOREIGN_ERRORS as error:
            translated = await self._translate(error)
            if isinstance(translated, AccessDeniedError):
                REDIS.refused(str(words[0]), translated)
            raise translated from error
        REDIS.allowed(str(words[0]))
        return answer

    async def run(
        self, script: Script, keys: Sequence[str] = (), words: Sequence[str | bytes | int] = ()
    ) -> Any:
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *words)
        except NoScriptError:
            return await self.call("EVAL", script.text, len(keys), *keys, *words)

    async def pages(self, *words: str | bytes, match: str = "*") -> AsyncIterator[Any]:
        """What SCAN, or HSCAN of a key, answers, page by page."""
        cursor = 0
        while True:
            cursor, page = await self.call(*words, cursor, "MATCH", match, "COUNT", PAGE)
            yield page
            if not int(cursor):
                return

    async def messages(self, channel: str) -> AsyncGenerator[bytes, None]:
        """What is published there, but for what comes while the connection is down."""
        failures = 0
        while True:
            subscriber = self._client.pubsub()  # type: ignore[no-untyped-call,unused-ignore]
            try:
                async with asyncio.timeout(ANSWER_S):
                    await subscriber.subscribe(channel)  # type: ignore[no-untyped-call,unused-ignore]
                async with aclosing(_received(subscriber)) as messages:
                    async for data in messages:
                        failures = 0
                        yield data
            except _FOREIGN_ERRORS as error:
                log.debug("no requests can come", reason=str(await self._translate(error)))
            finally:
                await subscriber.aclose()  # type: ignore[no-untyped-call,unused-ignore]
            failures += 1
            await asyncio.sleep(PAUSES.wait_s(failures))

    async def _translate(self, error: Exception) -> CefError:
        if isinstance(error, ReadOnlyError):
            # After a failover the name leads to another server, but a kept connection does not.
            await self._client.connection_pool.disconnect(inuse_connections=False)
        translated = translated_error(error)
        if isinstance(translated, ServerUnreachableError):
            REDIS.failed(translated)
        return translated

    async def close(self) -> None:
        await self._client.aclose()  # type: ignore[no-untyped-call,unused-ignore]


def connect(url: str, mend: Mend | None = None) -> RedisLink:
    """Opens no connection yet; one failed request is tried once more on a new connection."""
    # What a socket of this machine does not take.
    tcp: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=REQUEST_TIMEOUT_S,
            # The client would wait with asyncio.wait_for, which before Python 3.12 swallows a
            # cancel that meets the end of what it waits for. Our own calls have a limit anyway.
            socket_timeout=None,
            socket_connect_timeout=REQUEST_TIMEOUT_S,
            **tcp,
            protocol=2,
            encoding_errors="surrogateescape",  # what came out of it can be asked for again
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        _ = pool.connection_class(**pool.connection_kwargs)  # refuses them only when it is made
    except (ValueError, TypeError, RedisError):  # they tell what stood there
        raise SettingsError("REDIS_URL=***: it has an option that cannot be used") from None
    return RedisLink(Redis.from_pool(pool), mend)


async def _received(subscriber: PubSub) -> AsyncGenerator[bytes, None]:
    """Ends with an error where the server does not answer a ping."""
    is_asked = False
    while True:
        message = await subscriber.get_message(timeout=ANSWER_S if is_asked else QUIET_S)
        if message is None and is_asked:
            raise TimeoutError
        is_asked = message is None
        if message is None:
            async with asyncio.timeout(ANSWER_S):
                await subscriber.ping()  # type: ignore[no-untyped-call,unused-ignore]
        elif message["type"] == "message":
            yield message["data"]


def _is_mistyped(error: PermanentError) -> bool:
    return "WRONGTYPE" in str(error) or "not an integer" in str(error)


def translated_error(error: Exception) -> CefError:
    if isinstance(error, RedisConnectionError) and isinstance(error.__cause__, RedisError):
        error = error.__cause__  # on a socket file the client wraps what it was told on arrival
    text = redact(str(error)) or type(error).__name__
    if isinstance(error, NoPermissionError):
        return AccessDeniedError(
            f"Redis refused us: {text}",
            hint="give the user in REDIS_URL the rights ~* &* +@all -@dangerous",
        )
    if isinstance(error, AuthenticationError | AuthorizationError):
        return AccessDeniedError(
            f"Redis refused us: {text}",
            hint="check user and password in REDIS_URL",
            is_stranger=True,
        )
    if isinstance(error, ResponseError):
        word = getattr(error, "status_code", None) or ""
        if _UNAVAILABLE.search(f"{word} {text}"):
            return ServerUnreachableError(f"Redis cannot serve now: {word} {text}".strip())
        return PermanentError(f"Redis refused a request: {text}")
    if isinstance(error, TimeoutError):
        text = f"no answer within {REQUEST_TIMEOUT_S:g} s"
    return ServerUnreachableError(f"Redis is out of reach: {text}")
