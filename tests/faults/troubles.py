"""What befalls a machine beside kills: its disk is not mounted, an inode is used again, the store
is full, the service is frozen beside a recorder, the clock is set."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.disks import Disk, disk, take_inode
from tests.faults.frozen import AT_ONCE_S, FrozenProof
from tests.faults.instance import Instance
from tests.faults.small_store import SmallStore, give_small_store
from tests.faults.stepped_clock import SteppedClock
from tests.faults.world import MIB, World

DISK_BYTES = 4096 * MIB  # sparse
STORE_BYTES = 1536 * MIB  # of memory, where it is used
PATIENCE_S = 3.0  # for a moment that may not come
STORED = frozenset({"described", "handed_over"})
WAITING = "waiting for the watched folder"


class Gate:
    """Recordings pass; whoever closes it has the folder to himself."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._idle = asyncio.Event()
        self._open.set()
        self._idle.set()
        self._inside = 0

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        while not self._open.is_set():  # it may be closed again before we wake up
            await self._open.wait()
        self._inside += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._idle.set()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        self._open.clear()
        try:
            await self._idle.wait()
            yield
        finally:
            self._open.set()


@dataclass(slots=True)
class Machine:
    """`recordings` go through the gate."""

    world: World
    disk: Disk
    store: SmallStore
    clock: SteppedClock
    recordings: Gate = field(default_factory=Gate)
    _reused: int = 0

    # While no service of ours runs here.

    async def start_unmounted(self, instance: Instance) -> None:
        """It must wait for its folder, and judge nothing by the empty one in its place. A Redis
        that was emptied just now knows of no folder: an empty one may be watched then."""
        async with self.recordings.closed():
            must_wait = await self.world.judge.knows_folders()
            await self.disk.pull()
            try:
                await instance.launch()
                await self._waits(instance, must_wait=must_wait)
            finally:
                await self.disk.plug_in()
        await instance.ready()

    async def _waits(self, instance: Instance, *, must_wait: bool) -> None:
        async with asyncio.timeout(30):
            while WAITING not in await instance.said():
                if await instance.is_ready():
                    if must_wait:
                        self.world.faults.append("a folder that is not mounted was taken for empty")
                    return
                await asyncio.sleep(0.1)

    async def reuse_inode(self) -> None:
        """A stored file is deleted by hand, and another one gets its inode, size and date."""
        async with self.recordings.closed():
            stored = [
                record["relpath"]
                for record in await self.world.judge.records()
                if record.get("state") in STORED and record["relpath"] in self.world.wanted
            ]
            there = [name for name in sorted(stored) if (self.world.watched / name).is_file()]
            if there:
                self._reused += 1
                await self._put_in_place_of(self.world.random.choice(there))

    async def _put_in_place_of(self, relpath: str) -> None:
        former = self.world.watched / relpath
        name = f"{Path(relpath).parent}/again-{self._reused}.mp4"
        data = self.world.random.randbytes(former.stat().st_size)
        await asyncio.to_thread(_replace, former, self.world.watched / name, data)
        await self.world.adopt(name, interim=False)

    # While one runs.

    async def freeze(self, instance: Instance) -> None:
        """A recorder opens its files again at the moment when one of them is guarded."""
        freeze = FrozenProof(self.world, instance)
        freeze.prepare()
        try:
            await freeze.begun(PATIENCE_S)
        except TimeoutError:
            instance.pause()
        waited_s = await asyncio.to_thread(_open_all, self.world.watched)
        freeze.thaw()
        if waited_s > AT_ONCE_S:
            self.world.faults.append(f"open() took {waited_s:.1f} s beside a frozen service")

    async def fill_store(self) -> None:
        await self.store.fill()
        try:
            await asyncio.sleep(self.world.random.uniform(0.2, 1.5))
        finally:
            await self.store.free()

    def set_clock(self) -> None:
        self.clock.set_ahead(self.world.random.uniform(-8, 8))


async def give_machine(world: World) -> Machine:
    """Before any service starts. CannotRunError where this machine does not allow it."""
    watched = await world.closing.enter_async_context(disk(world.watched, DISK_BYTES))
    store = await give_small_store(world, STORE_BYTES)
    return Machine(world, watched, store, SteppedClock(world))


def _replace(former: Path, path: Path, data: bytes) -> None:
    facts = former.stat()
    former.unlink()
    draft = take_inode(facts.st_ino, lambda: _made(path.with_name(f".{path.name}")))
    draft.write_bytes(data)
    os.utime(draft, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    draft.rename(path)


def _made(path: Path) -> Path:
    path.touch()
    return path


def _open_all(folder: Path) -> float:
    """As a recorder does that goes on; the longest time it took."""
    longest = 0.0
    for path in sorted(folder.rglob("*.mp4")):
        started = time.monotonic()
        os.close(os.open(path, os.O_WRONLY))
        longest = max(longest, time.monotonic() - started)
    return longest
