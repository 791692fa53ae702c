"""Opens the stores that keep the results of jobs, as the settings name them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from cefmp4.app.clients import until_reachable
from cefmp4.app.extras import load
from cefmp4.config.backends import RESULTS
from cefmp4.config.results import RowStorage
from cefmp4.config.settings import Settings
from cefmp4.errors import PermanentError, SettingsError
from cefmp4.ports.results import ResultStore
from cefmp4.ports.store import ObjectStore
from cefmp4.results.objects import ObjectResults
from cefmp4.storage.s3.connect import s3_config
from cefmp4.storage.s3.store import S3Store, open_s3_store

# Each has an `open_results(settings)`, which gives a ResultStore while its context is open.
ADAPTERS: dict[str, str] = {
    RowStorage.POSTGRES: "cefmp4.results.postgres",
    RowStorage.SURREALDB: "cefmp4.results.surrealdb",
}


@asynccontextmanager
async def open_results(
    settings: Settings, store: ObjectStore
) -> AsyncIterator[tuple[ResultStore, ...]]:
    """The rows first, at last the document beside the playlists."""
    own = ObjectResults(store, bucket=settings.s3_bucket_name)
    async with AsyncExitStack() as stack:
        others: list[ResultStore] = []
        if (kind := settings.row_storage) is not None:
            module = await load(ADAPTERS, RESULTS, kind, f"STORAGE_TYPE={settings.storage_type}")
            others.append(await stack.enter_async_context(module.open_results(settings)))
        if settings.aws_s3_bucket or settings.s3_prefix:
            others.append(await _open_copies(settings, store, stack))
        yield (*others, own)


async def _open_copies(
    settings: Settings, store: ObjectStore, stack: AsyncExitStack
) -> ObjectResults:
    bucket = settings.aws_s3_bucket or settings.s3_bucket_name
    if bucket == settings.s3_bucket_name:
        return ObjectResults(store, bucket=bucket, prefix=settings.s3_prefix)
    config = replace(
        s3_config(settings, bucket), region=settings.aws_region or settings.s3_region_name
    )

    async def open_it() -> S3Store:
        try:
            opened = await stack.enter_async_context(open_s3_store(config))
            await opened.try_writing()
        except PermanentError as error:
            raise SettingsError(f"AWS_S3_BUCKET={bucket}: {error}") from error
        return opened

    other = await until_reachable(open_it, "S3", "S3_ENDPOINT_URL", settings)
    return ObjectResults(other, bucket=bucket, prefix=settings.s3_prefix)
