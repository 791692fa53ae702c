"""A service that is frozen while it holds the read lease of a file, beside the recorder of it."""

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.instance import Instance
from tests.faults.s3_proxy import Exchange, Rule
from tests.faults.world import World

AT_ONCE_S = 1.0  # more is noticed by a recorder; the kernel would let it wait for 45 s


@dataclass(slots=True)
class FrozenProof:
    """SIGSTOP meets the service just when it asks to complete an upload: the proof is made, and
    the file is guarded until the answer is there."""

    world: World
    instance: Instance
    _is_frozen: asyncio.Event = field(default_factory=asyncio.Event)
    is_thawed: asyncio.Event = field(default_factory=asyncio.Event)
    _rule: Rule | None = None

    def prepare(self) -> None:
        async def freeze(exchange: Exchange) -> bool:
            self.instance.pause()
            self._is_frozen.set()
            await self.is_thawed.wait()
            return await exchange.forward()

        self._rule = self.world.s3.add(freeze, "CompleteMultipartUpload")

    async def begun(self, timeout_s: float = 30) -> None:
        async with asyncio.timeout(timeout_s):
            await self._is_frozen.wait()

    def thaw(self) -> None:
        """No later moment counts, if that one did not come."""
        if self._rule is not None:
            self._rule.times = 0
        self.is_thawed.set()
        self.instance.resume()


async def append_again(world: World, relpath: str, size: int) -> None:
    """A recorder comes back to its file. To be kept waiting is a fault; it is in the first try of
    one who does not wait, which breaks the write guard."""
    data = world.random.randbytes(size)
    waited_s = await asyncio.to_thread(_append, world.watched / relpath, data)
    if waited_s > AT_ONCE_S:
        world.faults.append(f"open() of {relpath!r} took {waited_s:.1f} s beside a frozen service")
    await world.adopt(relpath)


def _append(path: Path, data: bytes) -> float:
    started = time.monotonic()
    fd = _patient_open(path) if len(data) % 2 else os.open(path, os.O_WRONLY | os.O_APPEND)
    waited_s = time.monotonic() - started
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    return waited_s


def _patient_open(path: Path) -> int:
    deadline = time.monotonic() + 60
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
