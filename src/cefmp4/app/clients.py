"""The clients of the servers we need: opened with patience, their errors turned into one line."""

import asyncio
import hashlib
import importlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, TypeVar

import structlog

from cefmp4.config.settings import Settings
from cefmp4.errors import (
    PermanentError,
    RefusedError,
    ServerUnreachableError,
    SettingsError,
    TransientError,
)
from cefmp4.model.job import JobInput, JobSpec
from cefmp4.model.object import PartProof, StoreProof
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.retry import for_a_while
from cefmp4.storage.redis.checkpoints import RedisCheckpointStore, open_checkpoints
from cefmp4.storage.s3.connect import S3Config, connect
from cefmp4.storage.s3.errors import KeyMissingError
from cefmp4.storage.s3.probe import PROBE_PREFIX
from cefmp4.storage.s3.store import S3Store, open_s3_store
from cefmp4.tasks import apart

if TYPE_CHECKING:  # loaded with the first job
    from cefmp4.jobs.queue import JobQueue

log = structlog.get_logger()
T = TypeVar("T")


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[RedisCheckpointStore]:
    """Waits for Redis as long as STARTUP_TIMEOUT_SECONDS allows."""
    address = settings.needed_redis_address
    async with open_checkpoints(address, lease_seconds=settings.lease_seconds) as checkpoints:
        await _until_reachable(checkpoints.is_fresh, "Redis", "REDIS_URL", settings)
        yield checkpoints


@asynccontextmanager
async def open_store(
    settings: Settings, checkpoints: CheckpointStore, *, will_write: bool = True
) -> AsyncIterator[S3Store]:
    """What the server was seen to prove is remembered, so that only the first start asks. What we
    may do there is tried at each."""
    memo = proof_memo(settings.s3_endpoint_url, settings.s3_bucket_name)
    config = s3_config(settings, settings.s3_bucket_name)
    remembered = _read_proof(await checkpoints.recall(memo))
    async with AsyncExitStack() as stack:

        async def open_it() -> S3Store:
            try:
                opened = await stack.enter_async_context(open_s3_store(config, proof=remembered))
                await opened.list_uploads(PROBE_PREFIX)  # credentials and bucket, right now
                if will_write:
                    await opened.try_writing()
            except PermanentError as error:  # refused, no such bucket, or no server for uploads
                raise SettingsError(str(error)) from error
            return opened

        store = await _until_reachable(open_it, "S3", "S3_ENDPOINT_URL", settings)
        if remembered is None:
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


def s3_config(settings: Settings, bucket: str) -> S3Config:
    secret = settings.s3_secret_access_key
    return S3Config(
        endpoint_url=settings.s3_endpoint_url,
        access_key=settings.s3_access_key_id,
        secret=secret.get_secret_value() if secret else None,
        bucket=bucket,
        region=settings.s3_region_name,
        transfer=settings.part_transfer,
        max_connections=settings.max_parts_in_flight + 16,
    )


def _read_proof(text: str | None) -> StoreProof | None:
    if text is None:
        return None
    known = json.loads(text)
    names = {field.name for field in fields(StoreProof)}
    if not names <= known.keys():
        return None  # an older version asked less
    facts = {name: bool(known[name]) for name in names - {"part"}}
    return StoreProof(part=PartProof(known["part"]), **facts)


async def _until_reachable(
    attempt: Callable[[], Awaitable[T]], server: str, setting: str, settings: Settings
) -> T:
    def tell(error: BaseException) -> None:
        log.warning(f"waiting for {server}", reason=str(error))

    try:
        return await for_a_while(
            attempt, seconds=settings.startup_timeout_seconds, on=(TransientError,), tell=tell
        )
    except TransientError as error:
        raise ServerUnreachableError(str(error), hint=f"check {setting}") from error


class JobsOnDemand:
    """Opens the queue with the first job: loading its engine costs as much as all the rest of a
    start, and a restart must not wait for it."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._opening = asyncio.Lock()
        self._queue: JobQueue | None = None

    async def submit(self, spec: JobSpec) -> bool:
        return await (await self._opened()).submit(spec)

    async def retry(self, job_id: str) -> None:
        await (await self._opened()).retry(job_id)

    async def _opened(self) -> "JobQueue":
        async with self._opening:
            if self._queue is None:
                self._queue = await apart(self._open(), name="open the queue of jobs")
            return self._queue

    async def _open(self) -> "JobQueue":
        module = await asyncio.to_thread(importlib.import_module, "cefmp4.jobs.queue")
        queue: JobQueue = await self._stack.enter_async_context(
            module.open_jobs(
                self._settings.needed_redis_address, lease_seconds=self._settings.lease_seconds
            )
        )
        return queue
