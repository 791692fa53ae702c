"""A worker whose jobs do nothing, but may take their time: `python noop_worker.py FOLDER`."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import structlog

from cefmp4.jobs.slots import Slots
from cefmp4.jobs.steps import Host, JobProcedure, Made, StepContext
from cefmp4.jobs.workplace import open_workplace
from cefmp4.log import configure_logging
from cefmp4.model.job import JobKind
from cefmp4.temporal.connect import EngineConfig, connect
from cefmp4.temporal.worker import working

log = structlog.get_logger()


async def _make(context: StepContext) -> Made:
    # Not by the log, which tells of many at once in one line.
    begun = {"event": "job begun", "timestamp": datetime.now(UTC).isoformat()}
    print(json.dumps(begun), file=sys.stderr, flush=True)
    await asyncio.sleep(float(context.spec.params.get("seconds", "0")))
    return Made()


async def work(folder: Path) -> None:
    config = EngineConfig(
        address=os.environ["TEMPORAL_ADDRESS"],
        codec_key=os.environ["TEMPORAL_CODEC_KEY"].encode(),
    )
    client = await connect(config, identity=str(os.getpid()), is_lazy=False)
    with open_workplace(folder) as workplace:
        host = Host(
            procedures={JobKind.HLS: JobProcedure(make=_make)}, slots=Slots({}), workplace=workplace
        )
        async with working(client, host, drain_s=0):
            log.info("ready for jobs")
            await asyncio.Event().wait()  # it is killed


if __name__ == "__main__":
    configure_logging(level="INFO", json_lines=True)
    asyncio.run(work(Path(sys.argv[1])))
