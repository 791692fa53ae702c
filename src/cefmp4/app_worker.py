"""The composition root of the worker: clients, procedures and slots, around one JobRunner."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from cefmp4.clients import open_redis, open_store
from cefmp4.config import Settings
from cefmp4.encode.hls import HlsOptions
from cefmp4.encode.making import MakerLimits
from cefmp4.hls_job import HlsJobs, make_encoder
from cefmp4.jobs.attempt import JobProcedure
from cefmp4.jobs.queue import open_jobs
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.workplace import open_workplace
from cefmp4.model.job import JobKind, SlotKind
from cefmp4.storage.owner import is_dead, owner_id
from cefmp4.worker import JobRunner


async def work(
    settings: Settings,
    *,
    kinds: Sequence[JobKind],
    slots: Mapping[SlotKind, int],
    stop: asyncio.Event,
    drain_s: float = 0.0,
) -> None:
    """Takes jobs until `stop`."""
    async with AsyncExitStack() as stack:
        checkpoints = await stack.enter_async_context(open_redis(settings))
        store = await stack.enter_async_context(open_store(settings, checkpoints))
        queue = await stack.enter_async_context(
            open_jobs(settings.redis_address or "", lease_seconds=settings.lease_seconds)
        )
        workplace = stack.enter_context(open_workplace(settings.state_dir / "work"))
        hls = HlsJobs(
            store=store,
            bucket=settings.s3_bucket_name,
            encoder=make_encoder(
                ffmpeg=settings.ffmpeg_path,
                options=HlsOptions(codecs=settings.hls_codec, ffprobe=settings.ffprobe_path),
                limits=MakerLimits(),
            ),
        )
        procedures: dict[JobKind, JobProcedure] = {JobKind.HLS: hls.procedure}
        await JobRunner(
            queue=queue,
            procedures={kind: procedures[kind] for kind in kinds if kind in procedures},
            slots=Slots(slots),
            workplace=workplace,
            owner=owner_id(settings.instance_id or socket.gethostname()),
            is_dead=is_dead,
            drain_s=drain_s,
        ).run(stop)


def slots_of(settings: Settings) -> dict[SlotKind, int]:
    return {SlotKind.GPU: settings.gpu_slots, SlotKind.CPU: settings.cpu_slots}
