"""One recording in memory, from first byte to end, as often as the service starts anew. It is the
service itself that lives here, on stores in memory, in a time that leaps.
What outlives a process can be judged: the file, the bucket, the checkpoints, the jobs."""

import asyncio
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.support.crash import Death
from tests.support.fake_checkpoints import FakeCheckpointStore
from tests.support.fake_store import FakeObjectStore
from tests.support.playable import PLAYABLE

from cefmp4.app.builder import Ports, build_ingest
from cefmp4.config.ingest import WatchMode
from cefmp4.config.settings import Settings
from cefmp4.ingest.folder import FolderFinder, FoundFolder
from cefmp4.ingest.service import IngestService
from cefmp4.ingest.sessions import IngestSessions
from cefmp4.model.folder import WatchedFolder
from cefmp4.model.job import JobSpec
from cefmp4.model.part import MIB, MIN_PART_BYTES
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.write_guard import WriteGuards
from cefmp4.tasks import cancel_all
from cefmp4.watch.folder_marks import place_of

NAME = "r.mp4"
PART = MIN_PART_BYTES
DATA = Random(7).randbytes(4 * PART + 1234)
PATCHED = DATA[: PART + 99] + b"patched" + DATA[PART + 106 :]  # in part 2, which left early
VERSIONS = (DATA[: 3 * PART + MIB], DATA, PATCHED)
WRITES_EVERY_S = 1.0  # less than the settle time
FOLDER = "f"
MAX_LIVES = 4
LIFE_S = 300.0
GRACE_S = 60


class KnownJobs:
    """Takes every job once."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    async def submit(self, spec: JobSpec) -> bool:
        is_new = spec.id not in self.ids
        self.ids.add(spec.id)
        return is_new


@dataclass
class Ground:
    """What outlives a process: the disk, S3, Redis, the queue; and the recorder, which is another
    process."""

    folder: Path
    hashing: ThreadPoolExecutor
    write_guards: WriteGuards
    store: FakeObjectStore = field(default_factory=lambda: FakeObjectStore(min_part_bytes=PART))
    jobs: KnownJobs = field(default_factory=KnownJobs)
    death: Death = field(default_factory=Death)
    dead: set[str] = field(default_factory=set)
    is_recorded: bool = False
    checkpoints: FakeCheckpointStore = field(init=False)

    def __post_init__(self) -> None:
        self.checkpoints = FakeCheckpointStore(
            clock=asyncio.get_running_loop().time, is_dead=lambda owner: owner in self.dead
        )

    @property
    def path(self) -> Path:
        return self.folder / NAME

    async def record(self) -> None:
        for version in VERSIONS:
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.write(version)
            await asyncio.sleep(WRITES_EVERY_S)
        self.is_recorded = True

    async def is_over(self) -> bool:
        """Nothing is left to do for anybody."""
        streams = await self.checkpoints.load_streams()
        is_known = bool(streams) and all(one.is_final and not one.owes_jobs for one in streams)
        return self.is_recorded and is_known and not await self.checkpoints.is_fresh(FOLDER)

    def settings(self) -> Settings:
        return Settings(
            watch_dir=self.folder,
            watch_dir_id=FOLDER,
            watch_mode=WatchMode.POLLING,
            instance_id="here",
            chunk_size_bytes=PART,
            shutdown_timeout_seconds=0,
            orphan_grace_seconds=GRACE_S,
        )

    def ports(self, owner: str) -> Ports:
        return Ports(
            owner=owner,
            checkpoints=self.death.through("checkpoints", self.checkpoints),
            store=self.death.through("store", self.store),
            jobs=self.death.through("jobs", self.jobs),
            probe=PLAYABLE,
            clocks=Clocks(monotonic=asyncio.get_running_loop().time, wall=time.time),
            write_guards=self.write_guards,
            hashing=self.hashing,
        )

    @property
    def found(self) -> FoundFolder:
        place = place_of(str(self.folder))
        assert place is not None
        return FoundFolder(folder=WatchedFolder(id=FOLDER), place=place, mounts=frozenset())

    def finder(self, checkpoints: CheckpointStore) -> FolderFinder:
        return FolderFinder(
            root=str(self.folder),
            named=FOLDER,
            host=self.settings().host,
            checkpoints=checkpoints,
        )

    def service(self, owner: str) -> IngestService:
        """One that is told by hand."""
        finder = self.finder(self.checkpoints)
        return build_ingest(self.settings(), self.ports(owner), finder=finder, found=self.found)


class Life:
    """One process: everything in it is new."""

    def __init__(self, ground: Ground, owner: str) -> None:
        self.stop = asyncio.Event()
        self._ground = ground
        self._owner = owner
        settings, ports = ground.settings(), ground.ports(owner)
        finder = ground.finder(ports.checkpoints)

        def build(found: FoundFolder) -> IngestService:
            return build_ingest(settings, ports, finder=finder, found=found)

        self._sessions = IngestSessions(finder, build)

    async def live(self) -> bool:
        """Until it is stopped, which it is when nothing is left to do. False if it died before."""
        death, others = self._ground.death, asyncio.all_tasks()
        running = asyncio.create_task(self._sessions.run(self.stop))
        ends = [running, asyncio.create_task(death.came.wait())]
        ending = asyncio.create_task(self._stop_at_the_end())
        done, _ = await asyncio.wait(ends, timeout=LIFE_S, return_when=asyncio.FIRST_COMPLETED)
        is_whole = running in done
        await cancel_all([ending] if is_whole else asyncio.all_tasks() - others)
        self._ground.dead.add(self._owner)
        death.begin_anew()
        assert done, "it comes to no end"
        if is_whole:
            await running
        return is_whole

    async def _stop_at_the_end(self) -> None:
        while not await self._ground.is_over():  # noqa: ASYNC110  # time leaps
            await asyncio.sleep(1.0)
        self.stop.set()


async def play(ground: Ground, *, wipes: bool = False) -> int:
    """Lives after lives until one ends well; returns how many it took."""
    recording = asyncio.create_task(ground.record())
    try:
        for number in range(1, MAX_LIVES + 1):
            if await Life(ground, f"life-{number}").live():
                return number
            if wipes:
                ground.checkpoints.wipe()
        raise AssertionError("no life came to its end")
    finally:
        await cancel_all([recording])


async def sweep(ground: Ground) -> None:
    await ground.service("sweeper").orphans.step(time.time() + GRACE_S + 1)


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
