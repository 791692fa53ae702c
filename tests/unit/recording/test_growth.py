"""How long a file is quiet, while clocks are set; and who hears of what is seen of it."""

import asyncio
from dataclasses import dataclass, replace

import pytest

from cefmp4.model.stream import FileStamp
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.file import FileSample
from cefmp4.recording.growth import AT_REST_S, GrowthTap

NS = 1_000_000_000
STEPS = [-3600.0, -7.0, 0.0, 7.0, 25.0]


@dataclass
class Time:
    """`wall` runs with `monotonic`, until somebody sets it."""

    monotonic: float = 500.0
    wall: float = 1_700_000_000.0

    def __post_init__(self) -> None:
        self.clocks = Clocks(monotonic=lambda: self.monotonic, wall=lambda: self.wall)

    def go_on(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def look(self, size: int = 1) -> FileSample:
        """At a file that was written just now."""
        return FileSample(FileStamp(1, size, 0, int(self.wall * NS)), in_place=True)


@pytest.mark.parametrize("trusts_ctime", [True, False])
@pytest.mark.parametrize("step", STEPS)
def test_a_clock_that_is_set_makes_no_file_quiet(step: float, trusts_ctime: bool) -> None:
    time = Time()
    file = GrowthTap(clocks=time.clocks, trusts_ctime=trusts_ctime)
    for size in range(1, 20):
        look = time.look(size)
        time.wall += step  # between the write and the look at it
        file.take(look)
        assert (file.quiet_s, file.was_at_rest) == (0.0, False)
        time.go_on(1.0)
        assert file.quiet_s == pytest.approx(1.0)


@pytest.mark.parametrize("step", STEPS)
def test_one_that_was_written_before_we_came_is_watched_for_a_while(step: float) -> None:
    """Even if the clock was set before that, when nobody could know."""
    time = Time()
    look = time.look()
    time.wall += step
    time = Time(wall=time.wall)
    file = GrowthTap(clocks=time.clocks, trusts_ctime=True)
    file.take(look)
    assert (file.quiet_s, file.was_at_rest) == (0.0, False)


@pytest.mark.parametrize(("age", "is_at_rest"), [(AT_REST_S + 1, True), (AT_REST_S - 1, False)])
def test_an_old_file_was_at_rest_until_it_changes(age: float, is_at_rest: bool) -> None:
    time = Time()
    look = time.look()
    time.go_on(age)
    file = GrowthTap(clocks=time.clocks, trusts_ctime=True)
    file.take(look)
    assert file.was_at_rest is is_at_rest
    file.take(replace(look, in_place=False))
    assert file.was_at_rest is is_at_rest
    file.take(time.look(2))
    assert not file.was_at_rest


def test_where_change_times_are_of_another_machine_no_file_was_at_rest() -> None:
    time = Time()
    look = time.look()
    time.go_on(1000)
    file = GrowthTap(clocks=time.clocks, trusts_ctime=False)
    file.take(look)
    assert not file.was_at_rest


def a_tap() -> GrowthTap:
    return GrowthTap(clocks=Time().clocks, trusts_ctime=True)


def size_of(tap: GrowthTap) -> int:
    return 0 if tap.stamp is None else tap.stamp.size


async def all_wait() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_every_reader_is_told_of_what_it_waits_for() -> None:
    tap, time = a_tap(), Time()
    waiting = {
        size: asyncio.create_task(tap.until(lambda size=size: size_of(tap) >= size))  # type: ignore[misc]
        for size in (1, 2, 100)
    }
    await all_wait()
    tap.take(time.look(2))
    await all_wait()
    assert [size for size, task in waiting.items() if task.done()] == [1, 2]
    tap.take(time.look(100))
    assert await waiting[100] is True


async def test_a_slow_reader_sees_the_latest_and_holds_up_nobody() -> None:
    tap, time = a_tap(), Time()
    seen: dict[str, list[int]] = {"fast": [], "slow": []}
    may_go_on = asyncio.Event()

    async def read(name: str, pause: asyncio.Event) -> None:
        mine = seen[name]
        while await tap.until(lambda: size_of(tap) > max(mine, default=0)):
            mine.append(size_of(tap))
            await pause.wait()

    no_pause = asyncio.Event()
    no_pause.set()
    readers = [
        asyncio.create_task(read("fast", no_pause)),
        asyncio.create_task(read("slow", may_go_on)),
    ]
    for size in range(1, 50):
        tap.take(time.look(size))
        await all_wait()
    may_go_on.set()
    await all_wait()
    assert seen == {"fast": list(range(1, 50)), "slow": [1, 49]}
    tap.end()
    await asyncio.gather(*readers)


async def test_it_tells_of_a_file_that_goes_and_comes_back() -> None:
    tap, look = a_tap(), Time().look()
    tap.take(look)
    gone = asyncio.create_task(tap.until(lambda: tap.is_gone))
    await all_wait()
    tap.take(replace(look, in_place=False))
    assert await gone is True
    back = asyncio.create_task(tap.until(lambda: not tap.is_gone))
    await all_wait()
    tap.renamed()
    assert await back is True


async def test_no_reader_waits_for_ever() -> None:
    tap = a_tap()
    waiting = asyncio.create_task(tap.until(lambda: False))
    await all_wait()
    tap.end()
    assert await waiting is False
    assert await tap.until(lambda: False) is False
    assert await tap.until(lambda: True) is True


async def test_a_look_without_news_wakes_nobody() -> None:
    tap, look = a_tap(), Time().look()
    assert tap.take(look)
    asked: list[int] = []
    waiting = asyncio.create_task(tap.until(lambda: bool(asked.append(1))))  # type: ignore[func-returns-value]
    await all_wait()
    assert not tap.take(look)
    await all_wait()
    assert len(asked) == 1
    tap.end()
    await waiting
