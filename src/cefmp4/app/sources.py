"""Opens the sources of jobs that the settings name, and loads their drivers only then."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from cefmp4.app.extras import load
from cefmp4.config.backends import SOURCES
from cefmp4.config.settings import Settings
from cefmp4.config.sources import SourceType
from cefmp4.jobs.sources.asked import AskedJobs
from cefmp4.jobs.sources.feeder import Feeder, Reporter, figures_of
from cefmp4.ports.jobs import JobDesk
from cefmp4.ports.sources import JobSource

# Each has an `open_source(settings)`, which gives a JobSource while its context is open.
ADAPTERS: dict[str, str] = {
    SourceType.POSTGRES: "cefmp4.jobs.sources.postgres",
    SourceType.SQS: "cefmp4.jobs.sources.sqs",
    SourceType.SURREALDB: "cefmp4.jobs.sources.surrealdb",
}
# Of no end of a job they are told, so that only who asks them for jobs needs them.
ASKED_ONLY = {SourceType.SQS}


@asynccontextmanager
async def open_sources(
    settings: Settings, *, will_ask: bool = True
) -> AsyncIterator[list[JobSource]]:
    """`will_ask`: for jobs; else they are only told of ends."""
    async with AsyncExitStack() as stack:
        sources: list[JobSource] = []
        for kind in settings.polled_sources:
            if kind in ASKED_ONLY and not will_ask:
                continue
            module = await load(ADAPTERS, SOURCES, kind, f"JOB_SOURCE_TYPE={kind}")
            sources.append(await stack.enter_async_context(module.open_source(settings)))
        yield sources


def feeders(settings: Settings, sources: list[JobSource], desk: JobDesk) -> list[Feeder]:
    asked = AskedJobs(bucket=settings.s3_bucket_name, max_attempts=settings.worker_max_attempts)
    return [
        Feeder(source=source, desk=desk, asked=asked, figures=figures_of(source.name))
        for source in sources
    ]


def reporters(sources: list[JobSource]) -> dict[str, Reporter]:
    return {source.name: Reporter(source) for source in sources if source.wants_reports}
