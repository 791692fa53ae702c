"""The clients of the servers we need: opened with patience, their errors turned into one line."""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, fields
from typing import TypeVar

import structlog

from cefmp4.config.settings import Settings
from cefmp4.errors import PermanentError, RefusedError, SettingsError, TransientError
from cefmp4.model.job import JobInput
from cefmp4.model.object import PartProof, StoreProof
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.retry import at_start
from cefmp4.storage.redis.checkpoints import RedisCheckpointStore, open_checkpoints
from cefmp4.storage.s3.connect import connect, s3_config
from cefmp4.storage.s3.errors import KeyMissingError
from cefmp4.storage.s3.probe import PROBE_PREFIX
from cefmp4.storage.s3.store import S3Store, open_s3_store

log = structlog.get_logger()
T = TypeVar("T")


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[RedisCheckpointStore]:
    """Waits for Redis as long as STARTUP_TIMEOUT_SECONDS allows."""
    address = settings.needed_redis_address
    async with open_checkpoints(address, lease_seconds=settings.lease_seconds) as checkpoints:
        await until_reachable(checkpoints.is_fresh, "Redis", "REDIS_URL", settings)
        yield checkpoints


@asynccontextmanager
async def open_redis_if_there(settings: Settings) -> AsyncIterator[RedisCheckpointStore | None]:
    """For what can do without: None where no Redis is named, or where it does not answer now."""
    address = settings.redis_address
    if address is None:
        yield None
        return
    async with open_checkpoints(address, lease_seconds=settings.lease_seconds) as checkpoints:
        try:
            await checkpoints.is_fresh()
        except TransientError as error:
            log.warning("Redis is not there: it goes on without", reason=str(error))
            yield None
        else:
            yield checkpoints


@asynccontextmanager
async def open_store(
    settings: Settings,
    checkpoints: CheckpointStore | None = None,
    *,
    will_write: bool = True,
    presumed: StoreProof | None = None,
) -> AsyncIterator[S3Store]:
    """`checkpoints` remember what the server was seen to prove, so that only the first start asks.
    What we may do there is tried at each. `presumed`: what is taken for granted where nothing is
    remembered, instead of asking."""
    memo = proof_memo(settings.s3_endpoint_url, settings.s3_bucket_name)
    config = s3_config(settings, settings.s3_bucket_name)
    remembered = _read_proof(await checkpoints.recall(memo)) if checkpoints else None
    known = remembered or presumed
    async with AsyncExitStack() as stack:

        async def open_it() -> S3Store:
            try:
                opened = await stack.enter_async_context(open_s3_store(config, proof=known))
                await opened.list_uploads(PROBE_PREFIX)  # credentials and bucket, right now
                if will_write:
                    await opened.try_writing()
            except PermanentError as error:  # refused, no such bucket, or no server for uploads
                raise SettingsError(str(error)) from error
            return opened

        store = await until_reachable(open_it, "S3", "S3_ENDPOINT_URL", settings)
        if checkpoints and known is None:
            await checkpoints.remember(memo, json.dumps(asdict(store.proof)))
        log.debug("S3 is there", bucket=config.bucket, **asdict(store.proof))
        yield store


def proof_memo(endpoint_url: str | None, bucket: str) -> str:
    """Under what name it is remembered what this server was seen to prove."""
    return f"proof:{hashlib.sha256(f'{endpoint_url}|{bucket}'.encode()).hexdigest()[:16]}"


async def input_of_object(settings: Settings, bucket: str, key: str) -> JobInput:
    """As the object is now, in whatever bucket of our server. Nothing is tried out on that."""
    async with connect(s3_config(settings, bucket)) as (calls, _transfer):
        try:
            found = await calls.find(key)
        except KeyMissingError as error:
            raise RefusedError(f"there is no object {key!a} in the bucket {bucket!a}") from error
    return JobInput(bucket=bucket, key=key, size=found.size, etag=found.etag)


def _read_proof(text: str | None) -> StoreProof | None:
    if text is None:
        return None
    known = json.loads(text)
    names = {field.name for field in fields(StoreProof)}
    if not names <= known.keys():
        return None  # an older version asked less
    facts = {name: bool(known[name]) for name in names - {"part"}}
    return StoreProof(part=PartProof(known["part"]), **facts)


async def until_reachable(
    attempt: Callable[[], Awaitable[T]], server: str, setting: str, settings: Settings
) -> T:
    seconds = settings.startup_timeout_seconds
    return await at_start(attempt, server=server, setting=setting, seconds=seconds)
