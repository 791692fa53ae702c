"""Slots: bounded, fair, and never lost."""

import asyncio

from cefmp4.ingest.part_slots import QUIET_S, PartSlots


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Sender:
    """Takes a slot and keeps it until told to give it back."""

    def __init__(self, slots: PartSlots, stream: str, log: list[str]) -> None:
        self.stream = stream
        self._slots = slots
        self._log = log
        self._done = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._slots.enter("", self.stream, is_growing=False):
            self._log.append(self.stream)
            await self._done.wait()

    async def give_back(self) -> None:
        self._done.set()
        await self.task
        await settle()


async def test_no_more_parts_than_allowed() -> None:
    slots = PartSlots(max_parts=2, max_streams=9)
    log: list[str] = []
    senders = [Sender(slots, name, log) for name in "abc"]
    await settle()
    assert log == ["a", "b"]
    await senders[0].give_back()
    assert log == ["a", "b", "c"]
    for sender in senders[1:]:
        await sender.give_back()


async def test_streams_take_turns() -> None:
    slots = PartSlots(max_parts=1, max_streams=9)
    log: list[str] = []
    first = Sender(slots, "a", log)
    await settle()
    rest = [Sender(slots, name, log) for name in ("a", "a", "b", "b", "c")]
    await settle()
    await first.give_back()
    while not all(sender.task.done() for sender in rest):
        running = [s for s in rest if not s.task.done() and not s._done.is_set()]
        active = next(s for s in running if log.count(s.stream))
        by_turn = [s for s in running if s.stream == log[-1]]
        await (by_turn or [active])[0].give_back()
    assert log == ["a", "a", "b", "c", "a", "b"]


async def test_a_waiting_stream_is_not_starved_by_those_on_the_wire() -> None:
    slots = PartSlots(max_parts=4, max_streams=1)
    log: list[str] = []
    first = Sender(slots, "a", log)
    await settle()
    other = Sender(slots, "b", log)
    await settle()
    more = Sender(slots, "a", log)
    await settle()
    assert log == ["a"]
    await first.give_back()
    assert log == ["a", "b"]
    await other.give_back()
    await more.give_back()
    assert log == ["a", "b", "a"]


async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    slots = PartSlots(max_parts=1, max_streams=1)
    log: list[str] = []
    first = Sender(slots, "a", log)
    await settle()
    waiting, following = Sender(slots, "b", log), Sender(slots, "c", log)
    await settle()
    waiting.task.cancel()
    await settle()
    await first.give_back()
    assert log == ["a", "c"]
    await following.give_back()


async def test_draining_waits_for_parts_on_the_wire_and_lets_nobody_in() -> None:
    slots = PartSlots(max_parts=2, max_streams=2)
    log: list[str] = []
    first = Sender(slots, "a", log)
    await settle()
    draining = asyncio.create_task(slots.drain(5.0))
    await settle()
    late = Sender(slots, "b", log)
    await settle()
    assert log == ["a"]
    assert not draining.done()
    await first.give_back()
    await draining
    late.task.cancel()


async def test_the_gap_between_two_parts_is_not_quiet() -> None:
    slots = PartSlots(max_parts=1, max_streams=1)
    async with slots.enter("", "a", is_growing=False):
        quiet = asyncio.create_task(slots.quiet(60.0))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with slots.enter("", "b", is_growing=False):
        await asyncio.sleep(2 * QUIET_S)
        assert not quiet.done()
    async with asyncio.timeout(30):
        await quiet


async def test_patience_ends_before_it_is_quiet() -> None:
    slots = PartSlots(max_parts=1, max_streams=1)
    async with slots.enter("", "a", is_growing=False), asyncio.timeout(30):
        await slots.quiet(0.01)


async def in_turn(slots: PartSlots, *wanted: tuple[str, str, bool]) -> list[str]:
    """Who gets the one slot after whom, when all ask while it is taken."""
    log: list[str] = []

    async def send(stream: str, relpath: str, is_growing: bool) -> None:
        async with slots.enter(relpath, stream, is_growing=is_growing):
            log.append(stream)
            await asyncio.sleep(0)

    async with slots.enter("", "first", is_growing=False):
        tasks = [asyncio.create_task(send(*each)) for each in wanted]
        await settle()
    await asyncio.gather(*tasks)
    return log


async def test_a_growing_recording_goes_before_the_backlog() -> None:
    slots = PartSlots(max_parts=1, max_streams=1)
    backlog = [(f"old{n}", f"a/old{n}", False) for n in range(3)]
    assert await in_turn(slots, *backlog, ("now", "a/now", True)) == ["now", "old0", "old1", "old2"]


async def test_what_a_stream_waits_for_comes_along_once_it_is_known_to_grow() -> None:
    slots = PartSlots(max_parts=1, max_streams=1)
    backlog = [(f"old{n}", f"a/old{n}", False) for n in range(2)]
    log = await in_turn(slots, *backlog, ("now", "a/now", False), ("now", "a/now", True))
    assert log == ["now", "now", "old0", "old1"]


async def test_folders_take_turns_however_many_streams_each_has() -> None:
    slots = PartSlots(max_parts=1, max_streams=1)
    flood = [(f"evil{n}", f"evil/{n}", True) for n in range(20)]
    log = await in_turn(slots, *flood, ("cam", "cam/1", True), ("cam", "cam/1", True))
    assert [position for position, stream in enumerate(log) if stream == "cam"] == [1, 3]


async def test_the_backlog_leaves_a_slot_for_what_grows() -> None:
    slots = PartSlots(max_parts=4, max_streams=4)
    backlog = [asyncio.create_task(hold(slots, f"old{n}")) for n in range(6)]
    await settle()
    assert "in_flight={'old0': 1, 'old1': 1, 'old2': 1}" in repr(slots)
    async with asyncio.timeout(5), slots.enter("now", "now"):
        assert "'now': 1" in repr(slots)
    for task in backlog:
        task.cancel()
    await asyncio.gather(*backlog, return_exceptions=True)


async def hold(slots: PartSlots, stream: str) -> None:
    async with slots.enter("", stream, is_growing=False):
        await asyncio.sleep(60)
