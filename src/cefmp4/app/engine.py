"""The way to the engine of jobs, for whoever hands over, works or looks."""

import asyncio
import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cefmp4.app.clients import until_reachable
from cefmp4.config.engine import temporal_address_missing
from cefmp4.config.settings import Settings
from cefmp4.embedded.state import codec_key_in
from cefmp4.errors import SettingsError, UnknownJobError
from cefmp4.model.job import CALLBACK, Job, JobKind, JobSpec, JobState, QueueStats
from cefmp4.ports.jobs import JobDesk
from cefmp4.storage.redis.owner import owner_id
from cefmp4.tasks import apart
from cefmp4.web.access import is_loopback

if TYPE_CHECKING:
    from cefmp4.temporal.connect import EngineClient
    from cefmp4.temporal.desk import Desk


class DeskOnDemand:
    """Loads the engine's client with the first question: that costs as much as all the rest of a
    start, and a restart must not wait for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening = asyncio.Lock()
        self._opened: Desk | None = None

    async def _desk(self) -> "Desk":
        async with self._opening:
            if self._opened is None:
                self._opened = await apart(self._open(), name="open the desk of jobs")
            return self._opened

    async def _open(self) -> "Desk":
        client = await open_engine(self._settings)
        module = await asyncio.to_thread(importlib.import_module, "cefmp4.temporal.desk")
        tells = (CALLBACK,) if self._settings.webhook_url else ()
        desk: Desk = module.Desk(client, tells=tells)
        return desk

    async def submit(self, spec: JobSpec) -> bool:
        return await (await self._desk()).submit(spec)

    async def find(self, job_id: str) -> Job | None:
        return await (await self._desk()).find(job_id)

    async def get(self, job_id: str) -> Job:
        return await (await self._desk()).get(job_id)

    async def latest(
        self, states: Iterable[JobState], limit: int, kind: JobKind | None = None
    ) -> list[Job]:
        return await (await self._desk()).latest(states, limit, kind)

    async def complete_of(self, job_ids: Sequence[str]) -> set[str]:
        return await (await self._desk()).complete_of(job_ids)

    async def counts(self, kind: JobKind | None = None) -> dict[JobState, int]:
        return await (await self._desk()).counts(kind)

    async def backlog(self, kind: JobKind) -> int:
        return await (await self._desk()).backlog(kind)

    async def queue(self, kind: JobKind) -> QueueStats:
        return await (await self._desk()).queue(kind)

    async def cancel(self, job_id: str) -> JobState:
        return await (await self._desk()).cancel(job_id)

    async def retry(self, job_id: str) -> None:
        await (await self._desk()).retry(job_id)

    async def begin_again(self, spec: JobSpec) -> None:
        await (await self._desk()).begin_again(spec)


class NoJobs:
    """Where none are made, and no engine is named: there are none to tell of."""

    async def find(self, _job_id: str) -> Job | None:
        return None

    async def get(self, job_id: str) -> Job:
        raise UnknownJobError(f"there is no job {job_id!a}")

    async def latest(
        self, _states: Iterable[JobState], _limit: int, _kind: JobKind | None = None
    ) -> list[Job]:
        return []

    async def complete_of(self, _job_ids: Sequence[str]) -> set[str]:
        return set()

    async def counts(self, _kind: JobKind | None = None) -> dict[JobState, int]:
        return dict.fromkeys(JobState, 0)

    async def backlog(self, _kind: JobKind) -> int:
        return 0

    async def queue(self, _kind: JobKind) -> QueueStats:
        return QueueStats()

    async def submit(self, _spec: JobSpec) -> bool:
        raise temporal_address_missing()

    async def begin_again(self, _spec: JobSpec) -> None:
        raise temporal_address_missing()

    async def cancel(self, job_id: str) -> JobState:
        return (await self.get(job_id)).state

    async def retry(self, job_id: str) -> None:
        await self.get(job_id)


def desk_of(settings: Settings) -> JobDesk:
    are_there_any = settings.has_jobs or settings.temporal_address is not None
    return DeskOnDemand(settings) if are_there_any else NoJobs()


async def reach_engine(settings: Settings) -> "EngineClient":
    """Waits for Temporal as long as STARTUP_TIMEOUT_SECONDS allows."""
    asking = await asyncio.to_thread(importlib.import_module, "cefmp4.temporal.asking")

    async def attempt() -> "EngineClient":
        client = await open_engine(settings, is_lazy=False)
        await asking.kept_days(client)
        return client

    return await until_reachable(attempt, "Temporal", "TEMPORAL_ADDRESS", settings)


async def open_engine(settings: Settings, *, is_lazy: bool = True) -> "EngineClient":
    """Loading it costs as much as all the rest of a start, so it is loaded here, off the loop."""
    address = settings.needed_temporal_address
    connecting = await asyncio.to_thread(importlib.import_module, "cefmp4.temporal.connect")
    key = _codec_key(settings)
    config = connecting.EngineConfig(
        address=address,
        namespace=settings.temporal_namespace,
        codec_key=key.encode(),
        api_key=settings.temporal_api_key.get_secret_value() if settings.temporal_api_key else "",
        server_name=settings.temporal_tls_server_name,
        speaks_tls=settings.speaks_tls,
        **_pem_files(settings),
    )
    client: EngineClient = await connecting.connect(
        config, identity=owner_id(settings.host), is_lazy=is_lazy
    )
    return client


def check_named(settings: Settings) -> None:
    """For whoever will need Temporal, and must say at once what is missing. Asks nobody."""
    _check_key_is_named(settings)
    _pem_files(settings)


def _pem_files(settings: Settings) -> dict[str, bytes | None]:
    paths = {
        "ca_cert": (settings.temporal_tls_server_ca_cert_path, "TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
        "client_cert": (settings.temporal_tls_client_cert_path, "TEMPORAL_TLS_CLIENT_CERT_PATH"),
        "client_key": (settings.temporal_tls_client_key_path, "TEMPORAL_TLS_CLIENT_KEY_PATH"),
    }
    return {name: _read(path, setting) for name, (path, setting) in paths.items()}


def _check_key_is_named(settings: Settings) -> None:
    """One made here is of no use where other hosts work, too: whoever does not know it would end
    our jobs as ones that a stranger ordered."""
    address = settings.needed_temporal_address
    if settings.temporal_codec_key is None and not is_loopback(settings.temporal_host):
        raise SettingsError(
            f"TEMPORAL_CODEC_KEY is not set, and TEMPORAL_ADDRESS={address} is another host",
            hint="set it, the same on every host, to 16 characters or more",
        )


def _codec_key(settings: Settings) -> str:
    _check_key_is_named(settings)
    given = settings.temporal_codec_key
    return given.get_secret_value() if given else codec_key_in(settings.state_dir)


def _read(path: Path | None, setting: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting}={path}: {error.strerror}") from None
