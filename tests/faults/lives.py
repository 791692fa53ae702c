"""One stream in memory, from first byte to end, as often as its process starts anew.
What outlives a process can be judged: the file, the bucket, the checkpoints, the jobs."""

import asyncio
import hashlib
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.support.crash import Crash
from tests.support.fake_checkpoints import FakeCheckpointStore
from tests.support.fake_store import FakeObjectStore

from cefmp4.ingest.admission import Admission
from cefmp4.ingest.admitted import Admitted
from cefmp4.ingest.after.completion import Completion
from cefmp4.ingest.after.describer import Describer
from cefmp4.ingest.after.handover import Handover
from cefmp4.ingest.after.local_file import LocalFilePolicy
from cefmp4.ingest.claims import Claims
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.object_keys import ObjectKeys
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.processor import StreamProcessor, StreamTools
from cefmp4.ingest.recover.bucket_search import BucketSearch
from cefmp4.ingest.recover.orphans import OrphanSweeper
from cefmp4.ingest.recover.recovery import Recovery
from cefmp4.ingest.recover.startup import Startup
from cefmp4.ingest.rules import WaitingTimes
from cefmp4.ingest.uploader import Uploader
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.model.event import EventKind
from cefmp4.model.job import JobKind, JobSpec
from cefmp4.model.media import MediaInfo
from cefmp4.model.names import DEFAULT_KEY_TEMPLATE
from cefmp4.model.part import MIB, MIN_PART_BYTES, PartPlan
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.identity import Identity
from cefmp4.recording.stamps import stamp_of
from cefmp4.recording.write_guard import WriteGuards

NAME = "r.mp4"
PART = MIN_PART_BYTES
DATA = Random(7).randbytes(4 * PART + 1234)
PATCHED = DATA[: PART + 99] + b"patched" + DATA[PART + 106 :]  # in part 2, which left early
MAX_LIVES = 4


class Seen:
    """Finds every file playable."""

    async def probe(self, fd: int) -> MediaInfo:
        return MediaInfo(playable=True)


class KnownJobs:
    """Takes every job once."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.calls: Counter[str] = Counter()
        self._crash = ("", 0)

    def crash_before(self, operation: str, nth: int = 1) -> None:
        self._crash = ("before", self.calls[operation] + nth)

    def crash_after(self, operation: str, nth: int = 1) -> None:
        self._crash = ("after", self.calls[operation] + nth)

    async def submit(self, spec: JobSpec) -> bool:
        self.calls["submit"] += 1
        await asyncio.sleep(0)
        self._crash_at("before")
        is_new = spec.id not in self.ids
        self.ids.add(spec.id)
        self._crash_at("after")
        return is_new

    def _crash_at(self, moment: str) -> None:
        if self._crash == (moment, self.calls["submit"]):
            raise Crash(f"{moment} submit")


@dataclass
class Ground:
    """What outlives a process: the disk, S3, Redis, the queue, the time."""

    folder: Path
    hashing: ThreadPoolExecutor
    store: FakeObjectStore = field(default_factory=lambda: FakeObjectStore(min_part_bytes=PART))
    jobs: KnownJobs = field(default_factory=KnownJobs)
    dead: set[str] = field(default_factory=set)
    now: float = 1_000_000.0
    stage: int = 0
    checkpoints: FakeCheckpointStore = field(init=False)

    def __post_init__(self) -> None:
        self.checkpoints = FakeCheckpointStore(
            clock=self.time, is_dead=lambda owner: owner in self.dead
        )

    @property
    def path(self) -> Path:
        return self.folder / NAME

    def time(self) -> float:
        return self.now

    def go_on_recording(self) -> bool:
        """The recorder does its next thing; False when it has ended."""
        versions = (DATA[: 3 * PART + MIB], DATA, PATCHED)
        if self.stage < len(versions):
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.write(versions[self.stage])
        self.stage += 1
        return self.stage < len(versions)


class Life:
    """One process: everything in it is new."""

    def __init__(self, ground: Ground, owner: str, write_guards: WriteGuards) -> None:
        self.ground = ground
        self.owner = owner
        self._write_guards = write_guards
        self._admitted: Admitted | None = None
        self._running: StreamProcessor | None = None
        store, checkpoints, hashing = ground.store, ground.checkpoints, ground.hashing
        index, identity = FinishedIndex(), Identity(hashing=hashing)
        bucket_search = BucketSearch(
            store=store, prefix="streams/", hashing=hashing, plan=PartPlan(PART)
        )
        claims = Claims(checkpoints=checkpoints, owner=owner, wall_clock=ground.time)
        slots = PartSlots(max_parts=4, max_streams=4, quiet_s=0)
        self._keys = ObjectKeys(store, DEFAULT_KEY_TEMPLATE)
        self._uploader = Uploader(store=store, slots=slots, hashing=hashing)
        self.admission = Admission(
            root=str(ground.folder),
            host="here",
            plan=PartPlan(PART),
            keys=self._keys,
            index=index,
            claims=claims,
            store=store,
            recovery=Recovery(store=store, hashing=hashing, plan=PartPlan(PART)),
            bucket_search=bucket_search,
            identity=identity,
        )
        describer = Describer(
            store=store,
            probe=Seen(),
            slots=slots,
            identity=identity,
            bucket="b",
            watch_dir=str(ground.folder),
        )
        self._completion = Completion(
            describer=describer,
            handover=Handover(
                sink=ground.jobs, kinds=(JobKind.HLS,), bucket="b", watch_dir="/", max_attempts=3
            ),
            local_file=LocalFilePolicy("keep"),
            index=index,
            claims=claims,
            store=store,
        )
        self.startup = Startup(
            checkpoints=checkpoints,
            bucket_search=bucket_search,
            index=index,
            claims=claims,
            admission=self.admission,
            uploader=self._uploader,
            completion=self._completion,
        )

    async def live(self) -> None:
        """Until nothing is left to do."""
        unfinished = await self.startup.load()
        found = {NAME: stamp_of(self.ground.path.stat())} if self.ground.path.exists() else {}
        await self.startup.place(unfinished, found)
        is_recording = True
        while is_recording:
            is_recording = self.ground.go_on_recording()
            processor = await self._processor()
            if processor is not None and is_recording:
                await self._step(processor)
        await self.startup.finish_survey()
        while (processor := await self._processor()) is not None:
            await self._finish(processor)

    async def _processor(self) -> StreamProcessor | None:
        if self._admitted is None:
            self._admitted = await self.admission.admit(NAME)
            self._running = self._make(self._admitted) if self._admitted else None
        return self._running

    def _make(self, admitted: Admitted) -> StreamProcessor:
        ground = self.ground
        tools = StreamTools(
            uploader=self._uploader,
            keys=self._keys,
            write_guards=self._write_guards,
            writer_profiles=WriterProfiles(),
            times=WaitingTimes(settle=2.0, unknown_writer=2.0, idle=2.0),
            clocks=Clocks(monotonic=ground.time, wall=ground.time),
            trusts_ctime=False,
        )
        return StreamProcessor(admitted, tools)

    async def _step(self, processor: StreamProcessor) -> None:
        if processor.record.stream.is_proven:
            return
        processor.observe(processor.source.look())
        await processor._guarded_step()

    async def _finish(self, processor: StreamProcessor) -> None:
        assert self._admitted is not None
        for _ in range(30):
            if processor.end is not None:
                break
            processor.notify(EventKind.CLOSE)
            await self._step(processor)
            self.ground.now += 3.0
        assert processor.end is not None, "the stream came to no end"
        await self._completion.conclude(processor, self._admitted.former)
        self.close()

    def close(self) -> None:
        if self._admitted is not None:
            self._admitted.source.close()
        self._admitted = self._running = None

    def die(self) -> None:
        self.close()
        self.ground.dead.add(self.owner)


async def play(ground: Ground, write_guards: WriteGuards, *, wipes: bool = False) -> int:
    """Lives after lives until one ends well; returns how many it took."""
    for number in range(1, MAX_LIVES + 1):
        life = Life(ground, f"life-{number}", write_guards)
        try:
            await life.live()
        except Crash:
            await end_tasks()
            life.die()
            if wipes:
                ground.checkpoints.wipe()
            ground.now += 1.0
        else:
            return number
    raise AssertionError("no life came to its end")


async def end_tasks() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def sweep(ground: Ground) -> None:
    sweeper = OrphanSweeper(
        store=ground.store, checkpoints=ground.checkpoints, prefix="streams/", grace_s=60
    )
    await sweeper.step(time.time() + 61)


async def judge(ground: Ground) -> None:
    keys = [key for key in ground.store.keys if not key.endswith(".metadata.json")]
    assert len(keys) == 1, f"{len(keys)} objects"
    assert ground.store.data(keys[0]) == PATCHED
    document = json.loads(ground.store.data(f"{keys[0]}.metadata.json"))
    assert document["sha256"] == hashlib.sha256(PATCHED).hexdigest()
    assert sum(chunk["size_bytes"] for chunk in document["chunks"]) == len(PATCHED)
    assert ground.store.open_uploads == {}
    (stream,) = await ground.checkpoints.load_streams()
    assert stream.state in ("described", "handed_over")
    assert len(ground.jobs.ids) == 1
