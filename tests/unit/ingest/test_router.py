"""What the router makes of names that change, end and are taken again, on real files."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from structlog.testing import capture_logs
from tests.support.fake_store import Gate
from tests.support.rig import PART, bytes_of
from tests.support.routed_rig import DATE, RoutedRig

from cefmp4.errors import LeaseLostError
from cefmp4.ingest.admission import Admission
from cefmp4.ingest.fate import End
from cefmp4.model.event import EventKind
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.identity import Identity

pytestmark = pytest.mark.leaps


async def test_a_stream_goes_on_under_the_new_name_of_its_file(routed: RoutedRig) -> None:
    data = bytes_of(3 * PART)
    routed.write(data)
    first = await routed.sending()
    (routed.rig.folder / "r.mp4").rename(routed.rig.folder / "rear.mp4")
    routed.tell(EventKind.MOVE, "rear.mp4", "r.mp4")
    routed.let_go()
    await routed.settled()
    stream = await routed.assert_holds("rear.mp4", data)
    assert stream.id == first.record.stream.id
    assert len(routed.rig.checkpoints._streams) == 1


@pytest.mark.parametrize("how", ["event", "look"])
async def test_a_stream_does_not_go_on_with_another_file_of_its_size_and_date(
    routed: RoutedRig, how: str
) -> None:
    """Told of as its new name, or found in its stead."""
    rear = bytes_of(3 * PART)
    routed.write(bytes_of(3 * PART))
    first = await routed.sending()
    (routed.rig.folder / "r.mp4").unlink()
    routed.write(rear, "rear.mp4")
    if how == "event":
        routed.tell(EventKind.MOVE, "rear.mp4", "r.mp4")
    else:
        routed.tell(EventKind.CREATE, "rear.mp4")
        routed.tell(EventKind.DELETE, "r.mp4")
    routed.let_go()
    await routed.settled()
    stream = await routed.assert_holds("rear.mp4", rear)
    assert (stream.id != first.record.stream.id, stream.generation) == (True, 1)
    assert (first.end, first.record.stream.relpath) == (End.FAILED, "r.mp4")
    assert routed.rig.index.get("r.mp4") is None
    assert routed.rig.store.open_uploads == {}


async def test_a_new_recording_under_the_former_name_is_a_stream_of_its_own(
    routed: RoutedRig,
) -> None:
    """The name was taken again at once, by one of the same size and date."""
    data, following = bytes_of(3 * PART), bytes_of(3 * PART)
    routed.write(data)
    await routed.sending()
    (routed.rig.folder / "r.mp4").rename(routed.rig.folder / "r-1.mp4")
    routed.write(following)
    routed.tell(EventKind.MOVE, "r-1.mp4", "r.mp4")
    routed.tell(EventKind.CREATE, "r.mp4")
    routed.let_go()
    await routed.settled()
    await routed.assert_holds("r-1.mp4", data)
    await routed.assert_holds("r.mp4", following)


async def test_a_rename_over_the_file_of_another_stream_keeps_the_bytes(routed: RoutedRig) -> None:
    routed.write(data := bytes_of(3 * PART))
    routed.write(bytes_of(4 * PART), "s.mp4")
    for name in ("r.mp4", "s.mp4"):
        routed.tell(EventKind.CREATE, name)
    await routed.until(lambda: len(routed.router.processors) == 2)
    (routed.rig.folder / "r.mp4").rename(routed.rig.folder / "s.mp4")
    routed.tell(EventKind.MOVE, "s.mp4", "r.mp4")
    routed.let_go()
    await routed.settled()
    await routed.assert_holds("s.mp4", data)
    assert routed.rig.store.open_uploads == {}


# A name that goes before it is known what is finished there.


@contextmanager
def held_back(routed: RoutedRig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """What Redis knows of a path is on its way."""
    gate, ask = Gate(), routed.rig.checkpoints.load_stream_at

    async def answer_late(folder: str, relpath: str) -> Stream | None:
        known = await ask(folder, relpath)
        gate.reached.set()
        await gate.opened.wait()
        return known

    with monkeypatch.context() as patch:
        patch.setattr(routed.rig.checkpoints, "load_stream_at", answer_late)
        yield gate
        gate.release()


async def assert_another_is_stored(routed: RoutedRig, first: Stream) -> None:
    """One with the same size and date, at the same name."""
    assert routed.rig.index.get("r.mp4") is None
    assert first.stamp is not None
    assert routed.rig.index.former_paths_of(first.stamp) == []
    assert routed.router.pending == 0
    rear = bytes_of(2 * PART)
    routed.write(rear)
    second = await routed.stored()
    await routed.assert_holds("r.mp4", rear)
    assert second.id != first.id


@pytest.mark.parametrize("goes", ["deleted", "renamed to what nobody wants"])
async def test_a_name_that_goes_before_it_is_admitted_is_forgotten(
    routed: RoutedRig, monkeypatch: pytest.MonkeyPatch, goes: str
) -> None:
    routed.write(bytes_of(2 * PART))
    first = await routed.stored()
    routed.rig.index.remove("r.mp4")  # as another instance's, or after a look that missed it
    with held_back(routed, monkeypatch) as gate:
        routed.tell(EventKind.CREATE, "r.mp4")
        await gate.reached.wait()
        leave(routed, goes)
    await routed.settled()
    await assert_another_is_stored(routed, first)


@pytest.mark.parametrize("goes", ["deleted", "renamed to what nobody wants"])
async def test_a_name_that_goes_while_its_stream_is_concluded_is_forgotten(
    routed: RoutedRig, goes: str
) -> None:
    routed.write(bytes_of(2 * PART))
    routed.let_go()
    with routed.rig.store.pause("put_object") as gate:  # the metadata document
        routed.tell(EventKind.CREATE, "r.mp4")
        await gate.reached.wait()
        leave(routed, goes)
    await routed.settled()
    await assert_another_is_stored(routed, await routed.known("r.mp4"))


@pytest.mark.parametrize("goes", ["deleted", "renamed to what nobody wants"])
async def test_a_name_that_goes_when_all_is_over_is_forgotten(routed: RoutedRig, goes: str) -> None:
    routed.write(bytes_of(2 * PART))
    first = await routed.stored()
    leave(routed, goes)
    await assert_another_is_stored(routed, first)


def leave(routed: RoutedRig, goes: str) -> None:
    path = routed.rig.folder / "r.mp4"
    if goes == "deleted":
        path.unlink()
        routed.tell(EventKind.DELETE, "r.mp4")
    else:
        path.rename(path.with_name("r.mp4.old"))
        routed.tell(EventKind.MOVE, "r.mp4.old", "r.mp4")


async def test_a_name_that_was_taken_again_during_the_conclusion_is_looked_at(
    routed: RoutedRig,
) -> None:
    """By a file of its size and date: deleted, made again, and both told of too early."""
    rear = bytes_of(2 * PART)
    routed.write(bytes_of(2 * PART))
    routed.let_go()
    with routed.rig.store.pause("put_object") as gate:
        routed.tell(EventKind.CREATE, "r.mp4")
        await gate.reached.wait()
        (routed.rig.folder / "r.mp4").unlink()
        routed.tell(EventKind.DELETE, "r.mp4")
        routed.write(rear)
        routed.tell(EventKind.CREATE, "r.mp4")
    await routed.settled()
    stream = await routed.assert_holds("r.mp4", rear)
    assert stream.generation == 2
    assert routed.rig.index.get("r.mp4") is not None


async def test_a_rename_during_the_conclusion_keeps_the_stream(routed: RoutedRig) -> None:
    routed.write(bytes_of(2 * PART))
    routed.let_go()
    path = routed.rig.folder / "r.mp4"
    with routed.rig.store.pause("put_object") as gate:
        routed.tell(EventKind.CREATE, "r.mp4")
        await gate.reached.wait()
        path.rename(path.with_name("new.mp4"))
        routed.tell(EventKind.MOVE, "new.mp4", "r.mp4")
    await routed.settled()
    assert await routed.known("new.mp4")
    assert len(routed.rig.checkpoints._streams) == 1
    assert routed.rig.index.get("r.mp4") is None


async def test_a_retry_that_is_fenced_off_shows_no_new_recording(routed: RoutedRig) -> None:
    """Another instance goes on with the stream; whoever looks here again begins none of its own."""
    routed.write(bytes_of(4 * PART))
    processor = await routed.sending()
    stream, checkpoints = processor.record.stream, routed.rig.checkpoints
    await checkpoints.release(processor.record.lease)
    assert await checkpoints.claim(stream, "another") is not None
    routed.router.fence_off(processor.record)
    await routed.settled()
    for _ in range(3):
        routed.tell(EventKind.CREATE, "r.mp4")
        await routed.settled()
    assert routed.router.processors == []
    assert [known.id for known in await checkpoints.load_streams()] == [stream.id]
    assert list(routed.rig.index.latest) == []


async def test_new_dates_and_a_new_name_at_once_keep_the_stream(routed: RoutedRig) -> None:
    data = bytes_of(2 * PART)
    routed.write(data)
    first = await routed.stored()
    path = routed.rig.folder / "r.mp4"
    routed.writers.are_held = True
    os.utime(path, (DATE + 1, DATE + 1))
    routed.tell(EventKind.CREATE, "r.mp4")
    await routed.at_work()
    path.rename(path.with_name("new.mp4"))
    routed.tell(EventKind.MOVE, "new.mp4", "r.mp4")
    routed.let_go()
    await routed.settled()
    stream = await routed.assert_holds("new.mp4", data)
    assert stream.id == first.id
    assert await routed.rig.checkpoints.load_stream_at("", "r.mp4") is None
    assert routed.rig.index.get("new.mp4") is not None
    assert routed.rig.index.get("r.mp4") is None


@contextmanager
def renamed_when(
    routed: RoutedRig, state: StreamState, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """At the moment at which the record says so, and never again."""
    folder, save = routed.rig.folder, routed.rig.checkpoints.save

    async def save_and_rename(stream: Stream, *words: object, **named: object) -> bool:
        done = await save(stream, *words, **named)  # type: ignore[arg-type]
        now = next((name for name in ("r.mp4", "away") if (folder / name).exists()), None)
        if stream.state is state and now is not None:
            (folder / now).rename(folder / "new.mp4")
            routed.tell(EventKind.MOVE, "new.mp4", "r.mp4")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(routed.rig.checkpoints, "save", save_and_rename)
        yield


async def test_a_rename_just_after_the_last_word_of_the_record_is_written_too(
    routed: RoutedRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes_of(2 * PART)
    routed.write(data)
    routed.let_go()
    with renamed_when(routed, StreamState.DESCRIBED, monkeypatch):
        routed.tell(EventKind.CREATE, "r.mp4")
        await routed.settled()
    stream = await routed.assert_holds("new.mp4", data)
    assert stream.generation == 1
    assert await routed.rig.checkpoints.load_stream_at("", "r.mp4") is None


async def test_a_file_whose_new_name_is_told_when_it_was_given_up_is_stored(
    routed: RoutedRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes_of(PART // 2)
    routed.write(data)
    routed.tell(EventKind.CREATE, "r.mp4")
    await routed.at_work()
    (routed.rig.folder / "r.mp4").rename(routed.rig.folder / "away")
    with renamed_when(routed, StreamState.DROPPED, monkeypatch):
        routed.let_go()
        await routed.settled()
    await routed.assert_holds("new.mp4", data)


async def test_a_finished_file_that_is_renamed_twice_at_once_has_its_last_name(
    routed: RoutedRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever saw the name in between is the last to write it down."""
    folder, data = routed.rig.folder, bytes_of(2 * PART)
    routed.write(data)
    first = await routed.stored()
    is_file_of, is_asked, may_go_on = Identity.is_file_of, asyncio.Event(), asyncio.Event()

    async def slowly_at_first(identity: Identity, *words: Any) -> bool:
        is_first = not is_asked.is_set()
        is_asked.set()
        answer = await is_file_of(identity, *words)
        if is_first:
            await may_go_on.wait()
        return answer

    monkeypatch.setattr(Identity, "is_file_of", slowly_at_first)
    (folder / "r.mp4").rename(folder / "between.mp4")
    routed.tell(EventKind.MOVE, "between.mp4", "r.mp4")
    await is_asked.wait()
    (folder / "between.mp4").rename(folder / "last.mp4")
    routed.tell(EventKind.CREATE, "last.mp4")  # its move was among events that were lost
    await routed.until(lambda: routed.rig.index.get("last.mp4"))
    may_go_on.set()
    await routed.settled()
    stream = await routed.assert_holds("last.mp4", data)
    assert stream.id == first.id
    assert await routed.rig.checkpoints.load_stream_at("", "between.mp4") is None
    assert routed.rig.index.get("between.mp4") is None


# What cannot be worked on.


async def test_a_link_is_told_of_once_and_not_tried_again(routed: RoutedRig) -> None:
    (routed.rig.folder / "link.mp4").symlink_to("elsewhere.mp4")
    with capture_logs() as logs:
        for _ in range(3):
            routed.tell(EventKind.CREATE, "link.mp4")
            await routed.settled()
    assert [line["log_level"] for line in logs if line.get("file_path") == "link.mp4"] == [
        "warning"
    ]
    routed.router.start_comebacks(routed.rig.clock() + 1000)
    assert routed.router.pending == 0


async def test_what_cannot_be_read_is_said_once_and_tried_until_it_can(routed: RoutedRig) -> None:
    path = routed.rig.folder / "r.mp4"
    path.mkdir()
    with capture_logs() as logs:
        routed.tell(EventKind.CREATE, "r.mp4")
        for _ in range(3):
            await routed.settled()
            routed.router.start_comebacks(routed.rig.clock())
            assert routed.router.pending == 0, "not at once"
            routed.rig.clock.pass_by(100.0)
            routed.router.start_comebacks(routed.rig.clock())
            assert routed.router.pending == 1
        await routed.settled()
    assert [line["event"] for line in logs] == ["cannot read a file"]
    path.rmdir()
    routed.write(data := bytes_of(PART // 2))
    routed.let_go()
    routed.rig.clock.pass_by(100.0)
    routed.router.start_comebacks(routed.rig.clock())
    await routed.settled()
    await routed.assert_holds("r.mp4", data)


async def test_a_stream_that_is_taken_over_is_asked_for_again_after_a_while(
    routed: RoutedRig,
) -> None:
    routed.write(bytes_of(4 * PART))
    processor = await routed.sending()
    routed.router.fence_off(processor.record)
    await routed.settled()
    assert routed.router.processors == []
    routed.router.start_comebacks(routed.rig.clock() + 0.9)
    assert routed.router.pending == 0
    routed.router.start_comebacks(routed.rig.clock() + 1.0)
    await routed.at_work()
    (again,) = routed.router.processors
    assert again.record.stream.id == processor.record.stream.id


async def test_a_lease_that_is_lost_while_a_stream_is_admitted_is_no_failure(
    routed: RoutedRig,
) -> None:
    routed.write(data := bytes_of(PART // 2))
    routed.let_go()
    lost = LeaseLostError("another instance owns it")
    with capture_logs() as logs, patch.object(Admission, "admit", side_effect=lost):
        routed.tell(EventKind.CREATE, "r.mp4")
        await routed.settled()
    assert logs == []
    routed.router.start_comebacks(routed.rig.clock() + 1.0)
    await routed.settled()
    await routed.assert_holds("r.mp4", data)
