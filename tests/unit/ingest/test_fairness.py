"""Whose turn it is, among folders and within them."""

import asyncio

import pytest

from cefmp4.ingest.fairness import (
    BACKLOG_EVERY,
    FairGate,
    FairQueue,
    GrowingFirst,
    branches_of,
    one_too_many,
)


def queue_of(*paths: str) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue(branches_of)
    for path in paths:
        queue.put(path)
    return queue


def emptied(queue: FairQueue[str] | GrowingFirst[str]) -> list[str]:
    gone = []
    while queue:
        gone.append(queue.first() or "")
        queue.take(gone[-1])
    return gone


def test_folders_take_turns_and_the_oldest_of_each_goes_first() -> None:
    queue = queue_of("a/1", "a/2", "a/3", "b/1", "c/1", "c/2")
    assert emptied(queue) == ["a/1", "b/1", "c/1", "a/2", "c/2", "a/3"]


def test_a_thousand_subfolders_have_the_turn_of_one_folder() -> None:
    queue = queue_of(*[f"evil/{n}/1" for n in range(1000)], "cam/1", "cam/2", "top")
    assert [path.split("/")[0] for path in emptied(queue)[:6]] == [
        *("evil", "cam", "top"),
        *("evil", "cam", "evil"),
    ]


def test_what_is_put_twice_keeps_its_place_and_what_is_taken_out_leaves_no_trace() -> None:
    queue = queue_of("a/1", "a/2", "b/1")
    queue.put("a/1")
    queue.discard("b/1")
    queue.discard("b/1")
    assert "b/1" not in queue
    assert len(queue) == 2
    assert emptied(queue) == ["a/1", "a/2"]
    assert not queue


def test_folders_deeper_than_counted_are_one() -> None:
    deep = "d/" * 2000
    queue = queue_of(f"{deep}1", f"{deep}e/1", "a/1")
    assert emptied(queue) == [f"{deep}1", "a/1", f"{deep}e/1"]


def test_a_turn_can_be_given_away() -> None:
    queue = queue_of("a/1", "a/2", "b/1")
    queue.give_turn_away("a/1")
    assert emptied(queue) == ["b/1", "a/1", "a/2"]


def test_the_backlog_waits_for_what_grows_but_not_for_ever() -> None:
    queue: GrowingFirst[str] = GrowingFirst(branches_of)
    for number in range(2 * BACKLOG_EVERY):
        queue.put(f"old/{number}", is_growing=False)
        queue.put(f"now/{number}", is_growing=True)
    first = emptied(queue)[: 2 * BACKLOG_EVERY]
    assert first[: BACKLOG_EVERY - 1] == [f"now/{number}" for number in range(BACKLOG_EVERY - 1)]
    assert sum(path.startswith("old/") for path in first) == 2


def test_what_is_known_to_grow_changes_its_line() -> None:
    queue: GrowingFirst[str] = GrowingFirst(branches_of)
    queue.put("a", is_growing=False)
    queue.put("b", is_growing=False)
    queue.put("b", is_growing=True)
    assert len(queue) == 2
    assert emptied(queue) == ["b", "a"]


@pytest.mark.parametrize(
    ("held", "wanting", "gives_way"),
    [
        (["evil/1", "evil/2", "evil/3"], "cam/1", "evil/3"),
        (["evil/1", "cam/1"], "cam/2", None),  # both have their share
        (["evil/1", "cam/1"], "evil/2", None),
        (["evil/1", "evil/2", "cam/1"], "cam/2", None),  # to and fro would help nobody
        (["all/evil/1", "all/evil/2", "all/cam/1"], "all/new/1", "all/evil/2"),
        (["evil/a/1", "evil/b/1", "evil/b/2", "evil/b/3"], "cam/1", "evil/b/3"),
        (["1", "2", "3"], "cam/1", "3"),
        ([], "cam/1", None),
    ],
)
def test_who_gives_way(held: list[str], wanting: str, gives_way: str | None) -> None:
    assert one_too_many(held, wanting) == gives_way


async def test_a_gate_lets_folders_in_by_turns_and_loses_no_place_to_a_cancel() -> None:
    gate, log = FairGate(1), []

    async def go(path: str) -> None:
        async with gate.enter(path):
            log.append(path)
            await asyncio.sleep(0)

    async with gate.enter("first"):
        tasks = [asyncio.create_task(go(path)) for path in ("a/1", "a/2", "a/3", "b/1")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert log == ["a/1", "b/1", "a/3"]
    async with asyncio.timeout(5), gate.enter("last"):
        pass


async def test_a_gate_passes_on_the_turn_of_who_is_cancelled_with_it() -> None:
    gate = FairGate(1)

    async def go() -> None:
        async with gate.enter("a"):
            pass

    async with gate.enter("first"):
        waiting = asyncio.create_task(go())
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(5), gate.enter("last"):
        pass
