"""Row: kill -9 in the middle of an upload: how soon it goes on, and what is sent again."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from bench.place import GIB, Options, place, scratch
from bench.report import Line
from bench.service import LOOK_S, STORED, Service
from bench.writers import make_head, write_finished

SIZE = GIB
PART = 10 * 1024 * 1024  # the default, which 1 GiB does not outgrow
HEADERS = 2048  # bytes around one part, at most
ROW = "kill -9"
PARTS, IN_FLIGHT = "video_chunks_uploaded_total", "cefmp4_part_slots_in_use"


async def run(options: Options) -> list[Line]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch(options.files))
        where = await stack.enter_async_context(place(options, front=True))
        watch = folder / "recordings"
        watch.mkdir()
        make_head(folder / "head.mp4")
        write_finished(watch / "long.mp4", SIZE, (folder / "head.mp4").read_bytes(), 1)
        first = await stack.enter_async_context(Service(where, watch=watch, folder=folder))
        flying = await _until_half_sent(first, lambda: where.received)
        first.kill()
        before = where.received
        second = await stack.enter_async_context(Service(where, watch=watch, folder=folder))
        first_part = await _first_part(second)
        await second.until(STORED, 1, 120)
        total = where.received
        twice = max(0, total - SIZE - HEADERS * (SIZE // PART + flying + 20))
    note = (
        f"killed at {before / SIZE:.0%} with {flying} parts of {PART >> 20} MiB in flight;"
        f" {total / 1e6:,.1f} MB received for a file of {SIZE / 1e6:,.1f} MB"
    )
    return [
        Line(row=ROW, what="restart to the first new part stored", measured=first_part, unit="s",
             limit=2.0),
        Line(row=ROW, what="sent twice", measured=twice / 1e6, unit="MB",
             limit=flying * PART / 1e6, against="in flight at the kill", note=note),
    ]  # fmt: skip


async def _until_half_sent(service: Service, received: Callable[[], int]) -> int:
    """Returns the parts in flight, as of the last look before the kill."""
    deadline = time.monotonic() + 120
    flying = 0.0
    while received() < SIZE * 0.45:
        flying = (await service.metrics()).get(IN_FLIGHT, 0)
        if time.monotonic() > deadline:
            raise TimeoutError(f"half of the file did not leave: {service.tail()}")
        await asyncio.sleep(LOOK_S)
    return int(flying)


async def _first_part(service: Service) -> float:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (await service.metrics()).get(PARTS, 0) > 0:
            return time.time() - service.started
        await asyncio.sleep(LOOK_S)
    raise TimeoutError(f"no part after the restart: {service.tail()}")
