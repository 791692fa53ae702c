"""SIGTERM and SIGINT are heard at every moment of a start, whatever it waits for, and nothing is
lost by it. CEFMP4_STOPS says how many moments are drawn, CEFMP4_UNFINISHED how many streams a kill
left behind."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from tests.support.ports import free_port
from tests.support.servers import SwiftServer, ValkeyServer
from tests.support.service import Service, open_site, reached
from tests.support.unfinished import FOLDER, leave_unfinished, recordings

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

STOPS = int(os.environ.get("CEFMP4_STOPS", "2"))
UNFINISHED = int(os.environ.get("CEFMP4_UNFINISHED", "8"))
SEED = int(os.environ.get("SEED", "0")) or random.randrange(10**6)
START_S = 2.5
STOP_S = 6.0  # SHUTDOWN_TIMEOUT_SECONDS
PATIENCE_S = 60.0 + UNFINISHED / 2
SHORT = {"SHUTDOWN_TIMEOUT_SECONDS": str(STOP_S), "WATCH_DIR_ID": FOLDER}


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether it has a handler: before Python has read a line of ours, it has none for SIGTERM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


async def stop(
    service: Service, number: signal.Signals = signal.SIGTERM, moment: float | None = None
) -> None:
    """It ends in time, and well."""
    is_heard = hears(service.pid, signal.SIGTERM)  # Python itself has a handler for the other one
    began = time.monotonic()
    os.kill(service.pid, number)
    code = await service.exit_code(60)
    seconds = time.monotonic() - began
    when = f"SEED={SEED}, {moment} s after the start: " if moment is not None else ""
    assert code == 0 or not is_heard, f"{when}{await service.said()}"
    assert seconds < STOP_S, f"{when}it took {seconds:.1f} s\n{await service.said()}"


async def says(service: Service, words: str) -> None:
    async def is_said() -> bool:
        assert service.is_running, await service.said()
        return words in await service.said()

    assert await reached(is_said, PATIENCE_S)


async def asks(service: Service, port: int) -> None:
    """It has a connection to that server."""

    async def is_connected() -> bool:
        assert service.is_running, await service.said()
        connections = psutil.Process(service.pid).net_connections()
        return any(one.raddr and one.raddr.port == port for one in connections)

    assert await reached(is_connected, PATIENCE_S)


@asynccontextmanager
async def paused(server: SwiftServer | ValkeyServer) -> AsyncIterator[None]:
    """It takes connections and never answers."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_a_signal_at_any_moment_of_a_start_that_goes_on_with_many_streams(
    tiny_part_s3_server: SwiftServer, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    async with open_site(tiny_part_s3_server, tmp_path, **SHORT) as site:
        with recordings(site.watched, UNFINISHED) as files:
            await leave_unfinished(site, files)
            for moment in sorted(chance.uniform(0, START_S) for _ in range(STOPS)):
                await site.service.launch()
                await asyncio.sleep(moment)
                await stop(site.service, chance.choice([signal.SIGTERM, signal.SIGINT]), moment)
        await site.service.start()  # the writer has closed them meanwhile
        assert await site.described(site.files(), PATIENCE_S) == set()
        assert await site.service.stop() == 0
        assert len(await site.checkpoints.load_streams()) == UNFINISHED
        assert await site.store.list_uploads("streams/") == []
        for relpath in (files[0][0], files[-1][0]):
            assert (await site.held(relpath)).faults(site.watched / relpath) == []


async def test_a_signal_while_many_streams_run(
    tiny_part_s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with open_site(tiny_part_s3_server, tmp_path, **SHORT) as site:
        with recordings(site.watched, UNFINISHED) as files:
            await leave_unfinished(site, files)
            await site.service.start()
            await says(site.service, "resumed the upload")
            await stop(site.service)


async def test_a_signal_while_the_files_of_many_streams_are_gone_and_the_store_hangs(
    tiny_part_s3_server: SwiftServer, tmp_path: Path
) -> None:
    """Each of them is ended before the service is ready, and each end takes a request or two."""
    async with open_site(tiny_part_s3_server, tmp_path, **SHORT) as site:
        with recordings(site.watched, UNFINISHED) as files:
            await leave_unfinished(site, files)
        for relpath, _ in files:
            (site.watched / relpath).unlink()
        await site.service.launch()
        await says(site.service, "of an unfinished stream is gone")
        async with paused(tiny_part_s3_server):
            await stop(site.service)
        await site.service.launch()
        await site.service.ready(PATIENCE_S)
        failed = await site.checkpoints.load_streams()
        assert {stream.reason.split(":")[0] for stream in failed} == {"missing"}
        assert await site.store.list_uploads("streams/") == []
        assert await site.service.stop() == 0


@pytest.mark.parametrize("silent", ["Redis", "S3"])
async def test_a_signal_while_a_server_does_not_answer(
    silent: str, tiny_part_s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with open_site(tiny_part_s3_server, tmp_path, **SHORT) as site:
        server = site.valkey if silent == "Redis" else tiny_part_s3_server

        async def stop_while_it_asks(command: str) -> None:
            changes = {"PROM_PORT": str(free_port()), "TEMPORAL_ADDRESS": "127.0.0.1:1"}
            settings = site.service.settings | changes
            service = Service(command, settings, tmp_path, command=("cefmp4", command))
            await service.launch()
            try:
                await asks(service, server.port)
                await stop(service)
            finally:
                await service.kill()

        commands = ("ingest", "up") if silent == "Redis" else ("ingest", "worker", "up")
        async with paused(server):
            await asyncio.gather(*map(stop_while_it_asks, commands))


async def test_a_signal_while_redis_goes_silent_after_the_first_answer(
    tiny_part_s3_server: SwiftServer, tmp_path: Path
) -> None:
    """From there on it is waited for without end."""
    async with open_site(tiny_part_s3_server, tmp_path, **SHORT) as site:
        with recordings(site.watched, 3) as files:
            await leave_unfinished(site, files)
            await site.service.launch()
            await asks(site.service, tiny_part_s3_server.port)
            async with paused(site.valkey):
                await stop(site.service)


async def test_signals_while_everything_on_one_machine_starts(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    settings = {
        "STATE_DIR": str(tmp_path / "state"),
        "WATCH_DIR": str(tmp_path / "watched"),
        "APP_ENV": "production",
        "PROM_PORT": str(free_port()),
        "SHUTDOWN_TIMEOUT_SECONDS": str(STOP_S),
    }
    service = Service("up", settings, tmp_path, command=("cefmp4", "up"))
    try:
        for moment in sorted(chance.uniform(0.3, 2 * START_S) for _ in range(STOPS)):
            await service.launch()
            await asyncio.sleep(moment)
            await stop(service, chance.choice([signal.SIGTERM, signal.SIGINT]), moment)
            assert not servers_in(tmp_path)
    finally:
        await service.kill()


def servers_in(folder: Path) -> list[str]:
    """Programs that run with something below the folder among their arguments."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            commands.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [command for command in commands if str(folder) in command]


STUCK = """\
import asyncio, sys, time
from cefmp4.app.lifetime import stop_of_signals
async def main():
    stop = stop_of_signals(float(sys.argv[1]))
    print("begun", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    await asyncio.to_thread(time.sleep, 60)
asyncio.run(main())
"""


@asynccontextmanager
async def stuck(within_s: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """What a disk that hangs makes of a service: a thread waits for it, and cannot be told to end.
    The first signal has been heard."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STUCK, str(within_s)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        process.terminate()
        assert await process.stdout.readline() == b"stopping\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_disk_that_hangs_does_not_hold_up_the_end() -> None:
    async with stuck(2) as process, asyncio.timeout(STOP_S):
        assert process.stdout is not None
        assert b"the stop takes too long" in await process.stdout.read()
        assert await process.wait() == 0


async def test_a_second_signal_ends_it_at_once() -> None:
    async with stuck(60) as process, asyncio.timeout(STOP_S):
        process.terminate()
        assert await process.wait() == 128 + signal.SIGTERM
