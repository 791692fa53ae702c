"""Row: a big folder whose files are all stored already: how soon it is ready, what idling costs."""

import asyncio
import time
from pathlib import Path

from redis.asyncio import Redis

from bench import meter
from bench.place import Options, place, scratch
from bench.report import Line
from bench.service import Service
from cefmp4.model.names import new_stream_id, object_key
from cefmp4.model.part import MIB, Part
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.stamps import stamp_of
from cefmp4.storage.redis.records import encode_part, encode_stream
from cefmp4.watch.folder_marks import leave_mark

FILES, SHORT_FILES = 100_000, 10_000
FILES_PER_FOLDER = 1000
WINDOW_S, SHORT_WINDOW_S = 65.0, 15.0  # the long one holds a full look at the folder
SETTLE_AFTER_READY_S = 3.0
PAGE = 5000
ROW = "stored tree"


async def run(options: Options) -> list[Line]:
    count = SHORT_FILES if options.short else FILES
    window = SHORT_WINDOW_S if options.short else WINDOW_S
    # In memory where there is room: a busy disk needs minutes to make and remove so many files.
    with scratch(options.servers) as folder:
        watch = folder / "recordings"
        async with place(options) as where:
            streams = await asyncio.to_thread(_make_files, watch, count)
            await _remember(where.redis_url, streams)
            del streams
            async with Service(where, watch=watch, folder=folder) as service:
                ready = await service.ready(60)
                start_cpu = service.cpu_s
                await asyncio.sleep(SETTLE_AFTER_READY_S)
                before, began = service.cpu_s, time.monotonic()
                await asyncio.sleep(window)
                idle = (service.cpu_s - before) / (time.monotonic() - began)
                active = sum(s["state"] != "described" for s in await service.streams())
                memory = meter.rss(service.pid)
    looks = "one full look in it" if window > 60 else "no full look in it"
    return [
        Line(row=ROW, what=f"{count:,} files: start to ready", measured=ready, unit="s",
             limit=10.0, note=f"{start_cpu:.1f} CPU s; streams begun anew: {active}"),
        Line(row=ROW, what=f"idle CPU over {window:g} s", measured=idle * 100, unit="% of a core",
             limit=1.0, note=looks),
        Line(row=ROW, what="memory", measured=memory / 1e6, unit="MB"),
    ]  # fmt: skip


def _make_files(watch: Path, count: int) -> list[Stream]:
    watch.mkdir(parents=True, exist_ok=True)
    now, folder_id = time.time(), leave_mark(str(watch), "bench")
    streams = []
    for number in range(count):
        folder = watch / f"camera-{number // FILES_PER_FOLDER:03}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
        path = folder / f"clip-{number:06}.mp4"
        path.write_bytes(b"stored already")
        relpath = str(path.relative_to(watch))
        stream_id = new_stream_id(now, folder_id)
        key = object_key(
            "streams/{stream_id}/{filename}",
            stream_id=stream_id, relpath=relpath, started_at=now, host="bench",
        )  # fmt: skip
        stamp = stamp_of(path.stat())
        streams.append(
            Stream(
                id=stream_id, relpath=relpath, folder=folder_id,
                state=StreamState.DESCRIBED, key=key, part_base=10 * MIB,
                sent_high=stamp.size, size=stamp.size, stamp=stamp,
                crc64=number, sha256=f"{number:064x}", etag=f"{number:032x}", playable=True,
                started_at=now, closed_at=now, completed_at=now, updated_at=now, host="bench",
            )
        )  # fmt: skip
    return streams


async def _remember(url: str, streams: list[Stream]) -> None:
    """What the service would have written, without the hours that it would take."""
    async with Redis.from_url(url) as redis:
        folder = streams[0].folder
        await redis.set(f"cefmp4:epoch:{folder}", "1")
        await redis.sadd("cefmp4:folders", folder)
        for start in range(0, len(streams), PAGE):
            page = streams[start : start + PAGE]
            async with redis.pipeline(transaction=False) as pipe:
                pipe.hset("cefmp4:streams", mapping={s.id: encode_stream(s) for s in page})
                pipe.hset(f"cefmp4:paths:{folder}", mapping={s.relpath: s.id for s in page})
                for s in page:
                    part = Part(
                        number=1, size=s.size, crc64=s.crc64, etag=s.etag, uploaded_at=s.updated_at
                    )
                    pipe.hset(f"cefmp4:parts:{s.id}", "1", encode_part(part))
                await pipe.execute()
