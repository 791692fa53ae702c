"""One stream, cut off before and after every single call to S3 and to Redis: whatever the instant,
a fresh start on what is left ends with one object that holds the file, and nothing beside it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from tests.faults.lives import NAME, Ground, Life, end_tasks, judge, play, sweep

from cefmp4.ingest.claims import ForeignStreamError
from cefmp4.recording.write_guard import WriteGuards
from cefmp4.retry import no_waiting

pytestmark = pytest.mark.faults


@pytest.fixture(name="hashing")
def _hashing() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=2) as executor:
        yield executor


@pytest.fixture(name="write_guards")
async def _write_guards() -> AsyncIterator[WriteGuards]:
    async with WriteGuards() as write_guards:
        yield write_guards


@pytest.mark.parametrize("wipes", [False, True], ids=["", "wiped"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("port", ["store", "checkpoints", "jobs"])
async def test_cut_off_at_every_call(
    tmp_path: Path,
    hashing: ThreadPoolExecutor,
    write_guards: WriteGuards,
    port: str,
    moment: str,
    wipes: bool,
) -> None:
    with no_waiting():
        whole = Ground(_folder(tmp_path, "whole"), hashing)
        assert await play(whole, write_guards) == 1
        calls = dict(getattr(whole, port).calls)
        await judge(whole)
        failures = []
        for operation, count in calls.items():
            for nth in range(1, count + 1):
                ground = Ground(_folder(tmp_path, f"{operation}-{nth}"), hashing)
                fake = getattr(ground, port)
                (fake.crash_before if moment == "before" else fake.crash_after)(operation, nth)
                try:
                    assert await play(ground, write_guards, wipes=wipes) <= 2
                    if wipes:  # nobody knows an upload whose only part was patched meanwhile
                        await sweep(ground)
                    await judge(ground)
                except AssertionError as error:
                    failures.append(f"{moment} {operation} {nth}: {str(error)[:200]}")
                ground.path.unlink()
    assert not failures, "\n".join(failures)


async def _cancelled_after(ground: Ground, life: Life, turns: int) -> bool:
    """Whether it was still alive after so many turns of the loop. What it shields may finish."""
    living = asyncio.create_task(life.live())
    for _ in range(turns):
        await asyncio.sleep(0)
        if living.done():
            break
    was_alive = living.cancel()
    with suppress(asyncio.CancelledError):
        await living
    await end_tasks()
    return was_alive


async def _assert_no_torn_commit(ground: Ground) -> None:
    """What S3 has confirmed is remembered, and nothing else is."""
    for stream in await ground.checkpoints.load_streams():
        held = ground.store.open_uploads.get(stream.upload_id or "")
        if held is not None:
            remembered = await ground.checkpoints.load_parts(stream.id)
            assert set(remembered) == set(held), "a part was stored and not remembered"


async def test_cancelled_at_every_turn_of_the_loop(
    tmp_path: Path, hashing: ThreadPoolExecutor, write_guards: WriteGuards
) -> None:
    """SIGTERM at any instant tears no pair of a stored part and its checkpoint, and a fresh start
    finishes the rest."""
    failures, turns, was_alive = [], 0, True
    with no_waiting():
        while was_alive:
            ground = Ground(_folder(tmp_path, str(turns)), hashing)
            life = Life(ground, "cancelled", write_guards)
            was_alive = await _cancelled_after(ground, life, turns)
            try:
                await _assert_no_torn_commit(ground)
                life.die()
                assert await play(ground, write_guards) == 1
                await judge(ground)
            except AssertionError as error:
                failures.append(f"turn {turns}: {str(error)[:200]}")
            ground.path.unlink()
            turns += 1 + turns // 12
    assert turns > 100
    assert not failures, "\n".join(failures)


async def test_a_survey_that_begins_again_leaves_every_file_its_upload(
    tmp_path: Path, hashing: ThreadPoolExecutor, write_guards: WriteGuards
) -> None:
    """A crash cut it off when one of two files of one name had begun an upload, still empty."""
    ground = Ground(tmp_path, hashing)
    await ground.store.begin_upload("streams/x/older.mp4", content_type="", metadata={})
    for folder in ("a", "b"):
        (_folder(tmp_path, folder) / "r.mp4").write_bytes(folder.encode() * 100)
    first = Life(ground, "first", write_guards)
    await first.startup.load()
    one = await first.admission.admit("a/r.mp4")
    assert one is not None
    record = one.record
    upload_id = await ground.store.begin_upload(record.stream.key, content_type="", metadata={})
    await record.opened(upload_id)
    one.source.close()
    first.die()
    second = Life(ground, "second", write_guards)
    await second.startup.load()
    two = await second.admission.admit("b/r.mp4")
    assert two is not None
    two.source.close()
    assert two.record.stream.id != record.stream.id


async def test_what_another_instance_stored_is_not_stored_again(
    tmp_path: Path, hashing: ThreadPoolExecutor, write_guards: WriteGuards
) -> None:
    """It was killed and Redis was emptied while we were running: its records are gone, and ours
    are not all there is to know."""
    ground = Ground(tmp_path, hashing)
    survivor, other = Life(ground, "survivor", write_guards), Life(ground, "other", write_guards)
    await survivor.startup.load()
    await other.live()
    other.die()
    ground.checkpoints.wipe()
    with pytest.raises(ForeignStreamError):
        await survivor.admission.admit(NAME)
    await survivor.startup.restore(tuple)
    assert await ground.checkpoints.is_fresh()  # whoever starts now makes a survey, too
    recognised = await survivor.admission.admit(NAME)
    assert recognised is not None
    recognised.source.close()
    assert recognised.record.stream.is_proven
    assert recognised.record.stream.key in ground.store.keys
    await survivor.startup.finish_survey()
    assert not await ground.checkpoints.is_fresh()


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder
