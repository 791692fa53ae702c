"""Worker processes with everything that they reach: a Temporal, an S3 behind a proxy and a Redis of
their own, to be hurt. What a worker did stands in its log, with the moment."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil
from awscrt.checksums import crc64nvme
from tests.faults.s3_proxy import S3Proxy
from tests.support.hls_media import AAC, PICTURE, SOUND, ffmpeg
from tests.support.hls_set import HlsSet
from tests.support.ports import free_port
from tests.support.servers import SwiftServer
from tests.support.service import Service, Site, open_site, reached
from tests.support.temporal_server import CODEC_KEY, TemporalServer

from cefmp4.model.job import Job, JobInput, JobKind, JobSpec, Step, input_of_file
from cefmp4.storage.s3.store import S3Store
from cefmp4.temporal.connect import EngineConfig, connect
from cefmp4.temporal.desk import Desk

CHILDREN_S = 5.0
PATIENCE_S = 120.0
READY = 3  # jobs that the workers find
THREE_SEGMENTS_S = 13


@dataclass(frozen=True, slots=True)
class Begun:
    """A step that a worker began."""

    at: float
    job_id: str
    step: str
    attempt: str
    worker: str


class Worker(Service):
    """It is ready when it takes jobs, which is later than it answers."""

    _starts = 0

    async def launch(self) -> None:
        self._starts = await self._times_ready()
        await super().launch()

    async def is_ready(self) -> bool:
        return await super().is_ready() and await self._times_ready() > self._starts

    async def _times_ready(self) -> int:
        return (await self.said()).count('"ready for jobs"')


@dataclass(slots=True)
class Yard:
    site: Site
    temporal: TemporalServer
    s3: S3Proxy
    desk: Desk
    mark: str
    settings: dict[str, str]
    workers: list[Worker] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.site.folder

    @property
    def store(self) -> S3Store:
        return self.site.store

    def new_worker(self, *arguments: str, **changes: str) -> Worker:
        """Not started. It has a name of its own, as if it were another host."""
        name, port = f"host-{len(self.workers)}", str(free_port())
        own = {"INSTANCE_ID": name, "PROM_PORT": port, "WORKER_PORT": port}
        worker = Worker(
            name,
            {**self.settings, **own, **changes},
            self.folder,
            command=("cefmp4", "worker", *arguments),
        )
        self.workers.append(worker)
        return worker

    async def start_workers(self, count: int, **changes: str) -> list[Worker]:
        workers = [self.new_worker(**changes) for _ in range(count)]
        await asyncio.gather(*(worker.start() for worker in workers))
        return workers

    async def submit(self, source: JobInput, *, folder: str = "", max_attempts: int = 3) -> str:
        spec = JobSpec(
            subject=f"s{len(self.submitted):03}",
            kind=JobKind.HLS,
            input=source,
            max_attempts=max_attempts,
            folder=folder,
        )
        assert await self.desk.submit(spec)
        self.submitted.append(spec.id)
        return spec.id

    async def jobs(self) -> list[Job]:
        return list(await asyncio.gather(*map(self.desk.get, self.submitted)))

    async def all_end(self, timeout_s: float = PATIENCE_S) -> list[Job]:
        async def have_ended() -> bool:
            return all(job.is_final for job in await self.jobs())

        assert await reached(have_ended, timeout_s), await self.jobs()
        return await self.jobs()

    def begun(self, job_id: str = "", step: Step | None = None) -> list[Begun]:
        """In the order of time."""
        found = [begun for worker in self.workers for begun in _begun_in(worker)]
        return sorted(
            (one for one in found if job_id in ("", one.job_id) and step in (None, one.step)),
            key=lambda one: one.at,
        )

    async def next_begun(
        self, is_it: Callable[[Begun], bool], timeout_s: float, what: str
    ) -> Begun:
        found: list[Begun] = []

        async def is_there() -> bool:
            found[:] = [one for one in self.begun() if is_it(one)]
            return bool(found)

        assert await reached(is_there, timeout_s), f"not within {timeout_s} s: {what}"
        return found[0]

    async def check_done_once(self, job: Job) -> None:
        """It is complete, by one attempt, and players find all of that and nothing else."""
        assert job.is_complete, f"{job}: {job.error}"
        assert job.accepted in job.attempt_names
        published = {one.attempt for one in self.begun(job.id, Step.PUBLISH)}
        assert published == {job.accepted}, job
        hls = await HlsSet.read(self.store, job.spec.subject)
        assert hls.attempt == job.accepted
        assert hls.missing() == set(), f"{job}: named, but not there"
        assert hls.unnamed() == set(), f"{job}: there, but named by nothing"
        assert hls.differing() == [], f"{job}: rows that do not tell what is stored"
        assert job.result is not None
        assert job.result["segments"] == len(hls.rows)

    def children(self) -> list[int]:
        """Whatever was started by a worker of ours, living or dead: the search path tells."""
        own = {worker.pid for worker in self.workers if worker.is_running}
        return [pid for pid in _with_path(self.mark) if pid not in own]

    async def until_childless(self) -> None:
        """ffmpeg dies with its worker."""

        async def is_childless() -> bool:
            return not self.children()

        assert await reached(is_childless, CHILDREN_S), self.children()

    async def check_all_is_tidy(self) -> None:
        """Stops the workers. Nothing is left of them, and every job was done once."""
        for job in await self.all_end():
            await self.check_done_once(job)
        running = [worker for worker in self.workers if worker.is_running]
        assert await asyncio.gather(*(worker.stop() for worker in running)) == [0] * len(running)
        await self.until_childless()
        assert list((self.folder / "state" / "work").iterdir()) == []


@asynccontextmanager
async def open_yard(s3_server: SwiftServer, folder: Path, **changes: str) -> AsyncIterator[Yard]:
    """Without workers; an ingest service is in its site, and not started either."""
    temporal, s3 = TemporalServer(folder / "engine"), S3Proxy(s3_server.port)
    await temporal.start()
    await s3.start()
    mark = f":{folder}/mark"
    common = {
        "S3_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}",
        "STATE_DIR": str(folder / "state"),
        "HANDOVER_JOBS": "hls",
        "TEMPORAL_ADDRESS": temporal.address,
        "TEMPORAL_CODEC_KEY": CODEC_KEY.decode(),
        "HLS_GPU": "off",
        "HLS_CODEC": "h264",
        "LOG_LEVEL": "DEBUG",  # no line is left out, however often it comes
        **changes,
    }
    client = await connect(
        EngineConfig(address=temporal.address, codec_key=CODEC_KEY), identity="tests"
    )
    try:
        async with open_site(s3_server, folder, **common) as site:
            settings = {**site.service.settings, "PATH": os.environ["PATH"] + mark}
            yard = Yard(site, temporal, s3, Desk(client), mark, settings)
            try:
                yield yard
            finally:
                for worker in yard.workers:
                    await worker.end()
    finally:
        await s3.stop()
        await temporal.stop()


async def encoded(folder: Path, seconds: float, name: str = "encoded.mp4") -> JobInput:
    """A recording that must be encoded."""
    path = folder / name
    length = ("-t", str(seconds))
    await asyncio.to_thread(ffmpeg, *PICTURE, *SOUND, *length, "-c:v", "mpeg4", *AAC, path)
    return input_of_file(str(path), path.stat())


async def copied(folder: Path, seconds: float, name: str = "copied.mp4") -> JobInput:
    """One that fits HLS as it is."""
    path = folder / name
    h264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "60")
    await asyncio.to_thread(ffmpeg, *PICTURE, *SOUND, "-t", str(seconds), *h264, *AAC, path)
    return input_of_file(str(path), path.stat())


async def stored(store: S3Store, source: JobInput, bucket: str) -> JobInput:
    """The same from the store."""
    key = f"streams/{Path(source.path).name}"
    data = await asyncio.to_thread(Path(source.path).read_bytes)
    etag = await store.put_object(
        key, data, content_type="video/mp4", metadata={}, crc64=crc64nvme(data)
    )
    return JobInput(bucket=bucket, key=key, etag=etag)


@dataclass(slots=True)
class Supply:
    """Keeps jobs ready, of some recordings in turn."""

    yard: Yard
    recordings: list[JobInput]

    async def fill(self) -> None:
        """What lost an attempt may back off, and keep nobody busy."""
        jobs = await self.yard.jobs()
        ready = sum(not job.is_final and len(job.attempt_names) <= 1 for job in jobs)
        await self.add(READY - ready)

    async def add(self, count: int) -> None:
        for _ in range(count):
            source = self.recordings[len(self.yard.submitted) % len(self.recordings)]
            await self.yard.submit(source, max_attempts=1000)


@asynccontextmanager
async def open_supplied(
    s3_server: SwiftServer, folder: Path, **changes: str
) -> AsyncIterator[Supply]:
    """Two recordings that must be encoded, one of them from the store, and one that is copied."""
    async with open_yard(s3_server, folder, WATCH_DIR=str(folder), **changes) as yard:
        local = await encoded(folder, THREE_SEGMENTS_S)
        remote = await stored(yard.store, local, yard.settings["S3_BUCKET_NAME"])
        yield Supply(yard, [local, remote, await copied(folder, THREE_SEGMENTS_S)])


def records(log: Path) -> Iterable[dict[str, object]]:
    """The lines of a log that a kill left whole."""
    if not log.is_file():
        return
    for line in log.read_text(errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _begun_in(worker: Worker) -> Iterable[Begun]:
    for record in records(worker.log):
        if record.get("event") == "step begun":
            yield Begun(
                at=datetime.fromisoformat(str(record["timestamp"])).timestamp(),
                job_id=str(record["job_id"]),
                step=str(record["step"]),
                attempt=str(record["attempt"]),
                worker=worker.name,
            )


def _with_path(end: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PATH", "").endswith(end):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
