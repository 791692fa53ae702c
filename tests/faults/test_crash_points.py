"""One recording, cut off before and after every single call to S3, to Redis and to the queue:
whatever the instant, a fresh start on what is left ends with one object that holds the file, and
nothing beside it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.faults.lives import FOLDER, NAME, Ground, Life, judge, play, sweep
from tests.support.leaping_loop import LeapingLoop

from cefmp4.ingest.claims import ForeignStreamError
from cefmp4.recording.write_guard import WriteGuards
from cefmp4.tasks import cancel_all

pytestmark = [pytest.mark.faults, pytest.mark.leaps]

Break = Callable[[str], Ground]


@pytest.fixture(name="hashing")
def _hashing() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=2) as executor:
        yield executor


@pytest.fixture(name="write_guards")
async def _write_guards() -> AsyncIterator[WriteGuards]:
    with leaping().waiting_outside():
        write_guards = await WriteGuards().__aenter__()
    yield write_guards
    await write_guards.__aexit__()


@pytest.fixture(name="broken")
def _broken(tmp_path: Path, hashing: ThreadPoolExecutor, write_guards: WriteGuards) -> Break:
    """A ground where nothing was ever recorded."""

    def break_ground(name: str) -> Ground:
        folder = tmp_path / name
        folder.mkdir()
        return Ground(folder, hashing, write_guards)

    return break_ground


def leaping() -> LeapingLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, LeapingLoop)
    return loop


@pytest.mark.parametrize("wipes", [False, True], ids=["", "wiped"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("port", ["store", "checkpoints", "jobs"])
async def test_cut_off_at_every_call(broken: Break, port: str, moment: str, wipes: bool) -> None:
    whole = broken("whole")
    assert await play(whole) == 1
    await judge(whole)
    calls = [(where, what, count) for (where, what), count in whole.death.calls.items()]
    failures = []
    for where, operation, count in calls:
        for nth in range(1, count + 1) if where == port else ():
            ground = broken(f"{operation}-{nth}")
            ground.death.comes_at(moment, port, operation, nth)
            try:
                assert await play(ground, wipes=wipes) <= 2
                if wipes:  # nobody knows an upload whose only part was patched meanwhile
                    await sweep(ground)
                await judge(ground)
            except (AssertionError, ValueError) as error:
                failures.append(f"{moment} {operation} {nth}: {str(error)[:200]}")
            ground.path.unlink()
    assert not failures, "\n".join(failures)


async def _assert_no_torn_commit(ground: Ground) -> None:
    """What S3 has confirmed is remembered, and nothing else is."""
    for stream in await ground.checkpoints.load_streams():
        held = ground.store.open_uploads.get(stream.upload_id or "")
        if held is not None:
            remembered = await ground.checkpoints.load_parts(stream.id)
            assert set(remembered) == set(held), "a part was stored and not remembered"


async def test_stopped_at_every_turn_of_the_loop(broken: Break) -> None:
    """SIGTERM at any instant, with no time for parts on the wire, tears no pair of a stored part
    and its checkpoint, and a fresh start finishes the rest."""
    failures, turns, is_over = [], 0, False
    while not is_over:
        ground = broken(str(turns))
        recording = asyncio.create_task(ground.record())
        life = Life(ground, "stopped")
        leaping().in_turns(turns, life.stop.set)
        await life.live()
        is_over = await ground.is_over()
        try:
            await _assert_no_torn_commit(ground)
            assert await Life(ground, "afterwards").live()
            await judge(ground)
        except (AssertionError, ValueError) as error:
            failures.append(f"turn {turns}: {str(error)[:200]}")
        await cancel_all([recording])
        ground.path.unlink()
        turns += 1 + turns // 12
    assert turns > 100
    assert not failures, "\n".join(failures)


async def test_a_survey_that_begins_again_leaves_every_file_its_upload(broken: Break) -> None:
    """A crash cut it off when one of two files of one name had begun an upload, still empty."""
    ground = broken("two")
    await ground.store.begin_upload("streams/x/older.mp4", content_type="", metadata={})
    for folder in ("a", "b"):
        (ground.folder / folder).mkdir()
        (ground.folder / folder / NAME).write_bytes(folder.encode() * 100)
    first = ground.service("first")
    await first.startup.load()
    one = await first.router.admission.admit(f"a/{NAME}")
    assert one is not None
    record = one.record
    upload_id = await ground.store.begin_upload(record.stream.key, content_type="", metadata={})
    await record.opened(upload_id)
    one.source.close()
    ground.dead.add("first")
    second = ground.service("second")
    await second.startup.load()
    two = await second.router.admission.admit(f"b/{NAME}")
    assert two is not None
    two.source.close()
    assert two.record.stream.id != record.stream.id


async def test_what_another_instance_stored_is_not_stored_again(broken: Break) -> None:
    """It was killed and Redis was emptied while we were running: its records are gone, and ours
    are not all there is to know."""
    ground = broken("shared")
    survivor = ground.service("survivor")
    await survivor.startup.load()
    assert await play(ground) == 1
    ground.checkpoints.wipe()
    admission = survivor.router.admission
    with pytest.raises(ForeignStreamError):
        await admission.admit(NAME)
    await survivor.startup.restore(tuple)
    assert await ground.checkpoints.is_fresh(FOLDER)  # whoever starts now makes a survey, too
    recognised = await admission.admit(NAME)
    assert recognised is not None
    recognised.source.close()
    assert recognised.record.stream.is_proven
    assert recognised.record.stream.key in ground.store.keys
    await survivor.startup.finish_survey()
    assert not await ground.checkpoints.is_fresh(FOLDER)
