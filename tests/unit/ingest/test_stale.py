"""What is done with a stream that fell silent, and that this is what is counted."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from tests.support.rig import PART, Rig, bytes_of, open_growing
from tests.support.stream_facts import TIMES, facts

from cefmp4 import metrics
from cefmp4.errors import ProofFailedError
from cefmp4.ingest.fate import End
from cefmp4.ingest.presence import GONE_GRACE_POLLING_S
from cefmp4.ingest.rules import Move, StaleOutcome, is_stale, judge_stale, next_move
from cefmp4.model.stream import StreamState
from cefmp4.recording.write_guard import WriteGuardState
from cefmp4.tasks import cancel_all

pytestmark = pytest.mark.leaps

SILENT_S = 31.0  # longer than the timeout of the processors under test


@pytest.mark.parametrize(
    ("changes", "stored", "outcome", "move"),
    [
        ({}, 100, StaleOutcome.FINALIZE, Move.PROVE),
        ({}, 40, StaleOutcome.RESUME, Move.PROVE),
        ({"sent_high": 120}, 100, StaleOutcome.TRUNCATED, Move.TRUNCATED),
        ({"in_place": False}, 100, StaleOutcome.MISSING, Move.GONE),
    ],
)
@pytest.mark.parametrize("writer", WriteGuardState)
def test_no_silent_stream_is_only_looked_at(
    changes: dict[str, object],
    stored: int,
    outcome: StaleOutcome,
    move: Move,
    writer: WriteGuardState,
) -> None:
    silent = facts(quiet_s=30.0, writer=writer, **changes)
    assert judge_stale(silent, stored) is outcome
    assert next_move(silent, TIMES) is move


@pytest.mark.parametrize(
    ("changes", "is_so"),
    [
        ({"quiet_s": 29.9}, False),
        ({"quiet_s": 30.0}, True),
        ({"quiet_s": 30.0, "writer": WriteGuardState.WRITER}, True),
        ({"quiet_s": 30.0, "writer": WriteGuardState.WRITER, "size": 0}, False),
        ({"quiet_s": 30.0, "writer": WriteGuardState.WRITER, "size": 0, "sent_high": 9}, True),
        ({"quiet_s": 30.0, "writer": WriteGuardState.BLIND, "size": 0}, True),
    ],
)
def test_who_is_stale(changes: dict[str, object], is_so: bool) -> None:
    assert is_stale(facts(**changes), TIMES) is is_so


@pytest.fixture
def counted() -> Iterator[dict[str, float]]:
    """By outcome, once the test is through."""
    before = {outcome: _count_of(outcome) for outcome in StaleOutcome}
    rise: dict[str, float] = {}
    yield rise
    for outcome in StaleOutcome:
        assert _count_of(outcome) - before[outcome] == rise.get(outcome, 0), outcome


def _count_of(outcome: StaleOutcome) -> float:
    count: float = metrics.stale_outcomes.labels(outcome)._value.get()
    return count


@pytest.mark.parametrize("does_hang", [False, True])
async def test_the_rest_is_sent_and_proven(
    rig: Rig, counted: dict[str, float], does_hang: bool
) -> None:
    data = bytes_of(3 * PART)
    processor = await open_growing(rig, data)
    with (rig.folder / "r.mp4").open("r+b" if does_hang else "rb"):
        rig.clock.pass_by(SILENT_S)
        await rig.look(processor)
    assert processor.end is End.STORED
    assert rig.store.data(processor.record.stream.key) == data
    counted["resume"] = 1


async def test_what_is_stored_to_the_last_byte_is_proven(
    rig: Rig, counted: dict[str, float]
) -> None:
    """The completion was cut off, as by a crash, when all of it had been sent."""
    data = bytes_of(3 * PART)
    processor = await open_growing(rig, data)
    rig.clock.pass_by(3.0)
    with rig.store.pause("complete_upload") as gate:
        step = asyncio.create_task(processor.step())
        await gate.reached.wait()
        await cancel_all([step])
    assert processor.record.stored_bytes == len(data)
    rig.clock.pass_by(SILENT_S)
    await rig.look(processor)
    assert processor.end is End.STORED
    counted["finalize"] = 1


async def test_a_file_cut_off_fails(rig: Rig, counted: dict[str, float]) -> None:
    processor = await open_growing(rig, bytes_of(5 * PART))
    os.truncate(rig.folder / "r.mp4", PART // 2)
    await rig.look(processor)
    rig.clock.pass_by(SILENT_S)
    await rig.look(processor)
    assert processor.end is End.TRUNCATED
    assert rig.store.open_uploads == {}
    counted["truncated"] = 1


async def test_a_recorder_that_empties_its_file_and_hangs_loses_its_stream(
    rig: Rig, counted: dict[str, float]
) -> None:
    """What it writes after that is a stream of its own."""
    processor = await open_growing(rig, bytes_of(5 * PART))
    with (rig.folder / "r.mp4").open("r+b") as file:
        file.truncate(0)
        await rig.look(processor)
        assert processor.end is None
        rig.clock.pass_by(SILENT_S)
        await rig.look(processor)
        assert processor.end is End.TRUNCATED
        assert "truncated" in processor.record.stream.reason
        await processor.record.release()
        following = await rig.admit()
        assert following is not None
        for _ in range(3):
            await rig.look(following)
            rig.clock.pass_by(SILENT_S)
        assert following.end is None, "an empty file with a writer has not begun"
        file.seek(0)
        file.write(data := bytes_of(2 * PART))
    assert await rig.finish(following) is End.STORED
    assert rig.store.data(following.record.stream.key) == data
    counted["truncated"] = 1


async def test_one_that_is_overwritten_goes_on(rig: Rig, counted: dict[str, float]) -> None:
    processor = await open_growing(rig, bytes_of(6 * PART))
    rig.write(shorter := bytes_of(3 * PART + 99))
    os.truncate(rig.folder / "r.mp4", len(shorter))
    await rig.look(processor)
    rig.clock.pass_by(SILENT_S)
    await rig.look(processor)
    assert processor.end is None
    await rig.look(processor)
    assert processor.end is End.STORED
    assert rig.store.data(processor.record.stream.key) == shorter
    counted.update(overwritten=1, resume=1)


async def test_one_whose_file_is_missing_fails_once(rig: Rig, counted: dict[str, float]) -> None:
    processor = await open_growing(rig, bytes_of(5 * PART))
    rig.clock.pass_by(SILENT_S)
    (rig.folder / "r.mp4").unlink()
    await rig.look(processor)
    assert processor.end is None, "the other half of a rename may still come"
    rig.clock.pass_by(GONE_GRACE_POLLING_S)
    await rig.look(processor)
    assert processor.end is End.FAILED
    counted["missing"] = 1


async def test_nothing_is_counted_that_was_not_done(rig: Rig, counted: dict[str, float]) -> None:
    """The writer came back when it had been found silent; then it was done in time."""
    data = bytes_of(3 * PART)
    processor = await open_growing(rig, data)
    rig.clock.pass_by(SILENT_S)
    processor.observe(processor.source.look())
    rig.write(b"patched", at=7)
    await rig.step(processor)
    assert (processor.end, processor.record.stream.state) == (None, StreamState.UPLOADING)
    assert await rig.finish(processor) is End.STORED
    counted.clear()


async def test_a_proof_that_fails_is_tried_again_and_counted_once(
    rig: Rig, counted: dict[str, float]
) -> None:
    processor = await open_growing(rig, bytes_of(3 * PART))
    rig.store.fail("complete_upload", ProofFailedError("other bytes"), times=2)
    rig.clock.pass_by(SILENT_S)
    for _ in range(3):
        await rig.look(processor)
    assert processor.end is End.STORED
    counted["resume"] = 1
