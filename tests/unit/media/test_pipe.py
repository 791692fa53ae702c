"""Reading a pipe that others write to."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from cefmp4.media.pipe import Pipe

Ends = tuple[Pipe, int]


@pytest.fixture
def ends() -> Iterator[Ends]:
    read_fd, write_fd = os.pipe()
    pipe = Pipe(read_fd)
    yield pipe, write_fd
    pipe.close()


async def test_it_reads_what_is_there_and_no_more_than_fits(ends: Ends) -> None:
    pipe, writer = ends
    os.write(writer, b"abcde")
    room = bytearray(3)
    assert await pipe.read_into(memoryview(room)) == 3
    assert room == b"abc"
    assert await pipe.read(100) == b"de"
    os.close(writer)
    assert await pipe.read(100) == b""


async def test_it_waits_for_what_comes_later(ends: Ends) -> None:
    pipe, writer = ends
    reading = asyncio.create_task(pipe.read(100))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not reading.done()
    os.write(writer, b"late")
    assert await reading == b"late"
    os.close(writer)


async def test_a_reader_that_is_cancelled_looks_no_longer(ends: Ends) -> None:
    pipe, writer = ends
    reading = asyncio.create_task(pipe.read(100))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    os.write(writer, b"kept")
    await asyncio.sleep(0)
    assert await pipe.read(100) == b"kept"
    os.close(writer)


async def test_one_that_is_always_full_leaves_time_for_others(ends: Ends) -> None:
    pipe, writer = ends
    os.write(writer, bytes(100))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    for _ in range(20):
        assert await pipe.read(1)
    assert turns >= 20
    beside.cancel()
    os.close(writer)
