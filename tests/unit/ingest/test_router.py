"""What the router makes of names that change, end and are taken again, on real files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs
from tests.support.fake_store import Gate
from tests.support.ingest_site import DATE, Site
from tests.support.ingest_world import PART, bytes_of

from cefmp4.ingest.fate import End
from cefmp4.model.event import EventKind
from cefmp4.model.stream import Stream, StreamState


async def test_a_stream_goes_on_under_the_new_name_of_its_file(site: Site) -> None:
    data = bytes_of(3 * PART)
    site.write(data)
    first = await site.sending()
    (site.world.folder / "r.mp4").rename(site.world.folder / "rear.mp4")
    site.tell(EventKind.MOVE, "rear.mp4", "r.mp4")
    site.writers_end.set()
    await site.settled()
    stream = await site.assert_holds("rear.mp4", data)
    assert stream.id == first.record.stream.id
    assert len(site.world.checkpoints._streams) == 1


@pytest.mark.parametrize("how", ["event", "look"])
async def test_a_stream_does_not_go_on_with_another_file_of_its_size_and_date(
    site: Site, how: str
) -> None:
    """Told of as its new name, or found in its stead."""
    rear = bytes_of(3 * PART)
    site.write(bytes_of(3 * PART))
    first = await site.sending()
    (site.world.folder / "r.mp4").unlink()
    site.write(rear, "rear.mp4")
    if how == "event":
        site.tell(EventKind.MOVE, "rear.mp4", "r.mp4")
    else:
        site.tell(EventKind.CREATE, "rear.mp4")
        site.tell(EventKind.DELETE, "r.mp4")
    site.writers_end.set()
    await site.settled()
    stream = await site.assert_holds("rear.mp4", rear)
    assert (stream.id != first.record.stream.id, stream.generation) == (True, 1)
    assert (first.end, first.record.stream.relpath) == (End.FAILED, "r.mp4")
    assert site.world.index.get("r.mp4") is None
    assert site.world.store.open_uploads == {}


async def test_a_new_recording_under_the_former_name_is_a_stream_of_its_own(site: Site) -> None:
    """The name was taken again at once, by one of the same size and date."""
    data, following = bytes_of(3 * PART), bytes_of(3 * PART)
    site.write(data)
    await site.sending()
    (site.world.folder / "r.mp4").rename(site.world.folder / "r-1.mp4")
    site.write(following)
    site.tell(EventKind.MOVE, "r-1.mp4", "r.mp4")
    site.tell(EventKind.CREATE, "r.mp4")
    site.writers_end.set()
    await site.settled()
    await site.assert_holds("r-1.mp4", data)
    await site.assert_holds("r.mp4", following)


# A name that goes before it is known what is finished there.


@contextmanager
def held_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """What Redis knows of a path is on its way."""
    gate, ask = Gate(), site.world.checkpoints.load_stream_at

    async def answer_late(folder: str, relpath: str) -> Stream | None:
        known = await ask(folder, relpath)
        gate.reached.set()
        await gate.opened.wait()
        return known

    with monkeypatch.context() as patch:
        patch.setattr(site.world.checkpoints, "load_stream_at", answer_late)
        yield gate
        gate.release()


async def assert_another_is_stored(site: Site, first: Stream) -> None:
    """One with the same size and date, at the same name."""
    assert site.world.index.get("r.mp4") is None
    assert first.stamp is not None
    assert site.world.index.former_paths_of(first.stamp) == []
    assert site.router.pending == 0
    rear = bytes_of(2 * PART)
    site.write(rear)
    second = await site.stored()
    await site.assert_holds("r.mp4", rear)
    assert second.id != first.id


@pytest.mark.parametrize("goes", ["deleted", "renamed to what nobody wants"])
async def test_a_name_that_goes_before_it_is_admitted_is_forgotten(
    site: Site, monkeypatch: pytest.MonkeyPatch, goes: str
) -> None:
    site.write(bytes_of(2 * PART))
    first = await site.stored()
    site.world.index.remove("r.mp4")  # as another instance's, or after a look that missed it
    with held_back(site, monkeypatch) as gate:
        site.tell(EventKind.CREATE, "r.mp4")
        await gate.reached.wait()
        leave(site, goes)
    await site.settled()
    await assert_another_is_stored(site, first)


@pytest.mark.parametrize("goes", ["deleted", "renamed to what nobody wants"])
async def test_a_name_that_goes_while_its_stream_is_concluded_is_forgotten(
    site: Site, goes: str
) -> None:
    site.write(bytes_of(2 * PART))
    site.writers_end.set()
    with site.world.store.pause("put_object") as gate:  # the metadata document
        site.tell(EventKind.CREATE, "r.mp4")
        await gate.reached.wait()
        leave(site, goes)
    await site.settled()
    await assert_another_is_stored(site, await site.known("r.mp4"))


@pytest.mark.parametrize("goes", ["deleted", "renamed to what nobody wants"])
async def test_a_name_that_goes_when_all_is_over_is_forgotten(site: Site, goes: str) -> None:
    site.write(bytes_of(2 * PART))
    first = await site.stored()
    leave(site, goes)
    await assert_another_is_stored(site, first)


def leave(site: Site, goes: str) -> None:
    path = site.world.folder / "r.mp4"
    if goes == "deleted":
        path.unlink()
        site.tell(EventKind.DELETE, "r.mp4")
    else:
        path.rename(path.with_name("r.mp4.old"))
        site.tell(EventKind.MOVE, "r.mp4.old", "r.mp4")


async def test_a_name_that_was_taken_again_during_the_conclusion_is_looked_at(site: Site) -> None:
    """By a file of its size and date: deleted, made again, and both told of too early."""
    rear = bytes_of(2 * PART)
    site.write(bytes_of(2 * PART))
    site.writers_end.set()
    with site.world.store.pause("put_object") as gate:
        site.tell(EventKind.CREATE, "r.mp4")
        await gate.reached.wait()
        (site.world.folder / "r.mp4").unlink()
        site.tell(EventKind.DELETE, "r.mp4")
        site.write(rear)
        site.tell(EventKind.CREATE, "r.mp4")
    await site.settled()
    stream = await site.assert_holds("r.mp4", rear)
    assert stream.generation == 2
    assert site.world.index.get("r.mp4") is not None


async def test_a_rename_during_the_conclusion_keeps_the_stream(site: Site) -> None:
    site.write(bytes_of(2 * PART))
    site.writers_end.set()
    path = site.world.folder / "r.mp4"
    with site.world.store.pause("put_object") as gate:
        site.tell(EventKind.CREATE, "r.mp4")
        await gate.reached.wait()
        path.rename(path.with_name("new.mp4"))
        site.tell(EventKind.MOVE, "new.mp4", "r.mp4")
    await site.settled()
    assert await site.known("new.mp4")
    assert len(site.world.checkpoints._streams) == 1
    assert site.world.index.get("r.mp4") is None


async def test_a_retry_that_is_fenced_off_shows_no_new_recording(site: Site) -> None:
    """Another instance goes on with the stream; whoever looks here again begins none of its own."""
    site.write(bytes_of(4 * PART))
    processor = await site.sending()
    stream, checkpoints = processor.record.stream, site.world.checkpoints
    await checkpoints.release(processor.record.lease)
    assert await checkpoints.claim(stream, "another") is not None
    site.router.fence_off(processor.record)
    await site.settled()
    for _ in range(3):
        site.tell(EventKind.CREATE, "r.mp4")
        await site.settled()
    assert site.router.processors == []
    assert [known.id for known in await checkpoints.load_streams()] == [stream.id]
    assert list(site.world.index.latest) == []


async def test_new_dates_and_a_new_name_at_once_keep_the_stream(site: Site) -> None:
    data = bytes_of(2 * PART)
    site.write(data)
    first = await site.stored()
    path = site.world.folder / "r.mp4"
    site.writers_end.clear()
    site.sends.clear()
    os.utime(path, (DATE + 1, DATE + 1))
    site.tell(EventKind.CREATE, "r.mp4")
    await site.sends.wait()
    path.rename(path.with_name("new.mp4"))
    site.tell(EventKind.MOVE, "new.mp4", "r.mp4")
    site.writers_end.set()
    await site.settled()
    stream = await site.assert_holds("new.mp4", data)
    assert stream.id == first.id
    assert await site.world.checkpoints.load_stream_at("", "r.mp4") is None
    assert site.world.index.get("new.mp4") is not None
    assert site.world.index.get("r.mp4") is None


@contextmanager
def renamed_when(site: Site, state: StreamState, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the moment at which the record says so, and never again."""
    folder, save = site.world.folder, site.world.checkpoints.save

    async def save_and_rename(stream: Stream, *words: object, **named: object) -> bool:
        done = await save(stream, *words, **named)  # type: ignore[arg-type]
        now = next((name for name in ("r.mp4", "away") if (folder / name).exists()), None)
        if stream.state is state and now is not None:
            (folder / now).rename(folder / "new.mp4")
            site.tell(EventKind.MOVE, "new.mp4", "r.mp4")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(site.world.checkpoints, "save", save_and_rename)
        yield


async def test_a_rename_just_after_the_last_word_of_the_record_is_written_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes_of(2 * PART)
    site.write(data)
    site.writers_end.set()
    with renamed_when(site, StreamState.DESCRIBED, monkeypatch):
        site.tell(EventKind.CREATE, "r.mp4")
        await site.settled()
    stream = await site.assert_holds("new.mp4", data)
    assert stream.generation == 1
    assert await site.world.checkpoints.load_stream_at("", "r.mp4") is None


async def test_a_file_whose_new_name_is_told_when_it_was_given_up_is_stored(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes_of(PART // 2)
    site.write(data)
    site.tell(EventKind.CREATE, "r.mp4")
    await site.sends.wait()
    (site.world.folder / "r.mp4").rename(site.world.folder / "away")
    with renamed_when(site, StreamState.DROPPED, monkeypatch):
        site.writers_end.set()
        await site.settled()
    await site.assert_holds("new.mp4", data)


# What cannot be worked on.


async def test_a_link_is_told_of_once_and_not_tried_again(site: Site) -> None:
    (site.world.folder / "link.mp4").symlink_to("elsewhere.mp4")
    with capture_logs() as logs:
        for _ in range(3):
            site.tell(EventKind.CREATE, "link.mp4")
            await site.settled()
    assert [line["log_level"] for line in logs if line.get("file_path") == "link.mp4"] == [
        "warning"
    ]
    site.router.start_comebacks(site.world.clock() + 1000)
    assert site.router.pending == 0


async def test_what_cannot_be_read_is_said_once_and_tried_until_it_can(site: Site) -> None:
    path = site.world.folder / "r.mp4"
    path.mkdir()
    with capture_logs() as logs:
        site.tell(EventKind.CREATE, "r.mp4")
        for _ in range(3):
            await site.settled()
            site.router.start_comebacks(site.world.clock())
            assert site.router.pending == 0, "not at once"
            site.world.clock.pass_by(100.0)
            site.router.start_comebacks(site.world.clock())
            assert site.router.pending == 1
        await site.settled()
    assert [line["event"] for line in logs] == ["cannot read a file"]
    path.rmdir()
    site.write(data := bytes_of(PART // 2))
    site.writers_end.set()
    site.world.clock.pass_by(100.0)
    site.router.start_comebacks(site.world.clock())
    await site.settled()
    await site.assert_holds("r.mp4", data)


async def test_a_stream_that_is_taken_over_is_asked_for_again_after_a_while(site: Site) -> None:
    site.write(bytes_of(4 * PART))
    processor = await site.sending()
    site.router.fence_off(processor.record)
    await site.settled()
    assert site.router.processors == []
    site.router.start_comebacks(site.world.clock() + 0.9)
    assert site.router.pending == 0
    site.sends.clear()
    site.router.start_comebacks(site.world.clock() + 1.0)
    await site.sends.wait()
    (again,) = site.router.processors
    assert again.record.stream.id == processor.record.stream.id
