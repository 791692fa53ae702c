"""Which stream is meant by an id or a path, and what is known of a path."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fake_checkpoints import FakeCheckpointStore

from cefmp4.errors import RefusedError, UnknownStreamError
from cefmp4.ingest.folder import names_of
from cefmp4.ingest.operator import Finder
from cefmp4.model.stream import Stream
from cefmp4.watch.folder_marks import leave_mark

HOSTILE = os.fsdecode(b"camera/\x1b[31m\n\xff.mp4")


@pytest.fixture
def checkpoints() -> FakeCheckpointStore:
    return FakeCheckpointStore(lease_seconds=10, clock=lambda: 1000.0)


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    (folder / "camera").mkdir(parents=True)
    leave_mark(str(folder), "mark")
    return folder


@pytest.fixture
def finder(checkpoints: FakeCheckpointStore, watched: Path) -> Finder:
    return Finder(checkpoints, watched)


async def know(
    checkpoints: FakeCheckpointStore, number: int, relpath: str, folder: str = "mark"
) -> Stream:
    before = await checkpoints.load_stream_at(folder, relpath)
    stream = Stream(
        id=f"s{number}",
        relpath=relpath,
        folder=folder,
        part_base=1,
        started_at=float(number),
        updated_at=float(number),
        generation=before.generation + 1 if before else 1,
        previous_id=before.id if before else None,
    )
    lease = await checkpoints.claim(stream, "me")
    assert lease is not None
    await checkpoints.save(stream, lease)
    await checkpoints.release(lease)
    return stream


@pytest.mark.parametrize("relpath", ["a.mp4", "camera/a.mp4", HOSTILE])
async def test_a_path_however_it_is_written(
    checkpoints: FakeCheckpointStore,
    finder: Finder,
    watched: Path,
    monkeypatch: pytest.MonkeyPatch,
    relpath: str,
) -> None:
    known = await know(checkpoints, 1, relpath)
    monkeypatch.chdir(watched.parent)
    ways = [known.id, relpath, f"./{relpath}", f"watched/{relpath}", f"{watched}/{relpath}"]
    assert [await finder.find(way) for way in ways] == [known] * len(ways)
    monkeypatch.chdir(watched / "camera")
    assert await finder.find(relpath) == known
    assert await finder.find(f"../{relpath}") == known


async def test_through_a_link_to_the_folder(
    checkpoints: FakeCheckpointStore, finder: Finder, watched: Path
) -> None:
    known = await know(checkpoints, 1, "a.mp4")
    link = watched.with_name("link")
    link.symlink_to(watched)
    assert await finder.find(f"{link}/a.mp4") == known
    assert await Finder(checkpoints, link).find("a.mp4") == known


@pytest.mark.parametrize("what", ["", ".", "..", "/", "none", "../a.mp4", "/etc/passwd", "x\udcff"])
async def test_nothing_of_the_kind(
    checkpoints: FakeCheckpointStore, finder: Finder, what: str
) -> None:
    await know(checkpoints, 1, "a.mp4")
    assert await finder.find(what) is None
    with pytest.raises(UnknownStreamError, match="there is no stream"):
        await finder.get(what)


async def test_a_path_of_another_folder_is_another_file(
    checkpoints: FakeCheckpointStore, finder: Finder
) -> None:
    await know(checkpoints, 1, "a.mp4", folder="other")
    assert await finder.find("a.mp4") is None
    older = await know(checkpoints, 2, "a.mp4", folder="")
    assert await finder.find("a.mp4") == older
    ours = await know(checkpoints, 3, "a.mp4")
    assert await finder.find("a.mp4") == ours


async def test_where_the_folder_is_not(checkpoints: FakeCheckpointStore, tmp_path: Path) -> None:
    finder = Finder(checkpoints, tmp_path / "not mounted")
    known = await know(checkpoints, 1, "a.mp4", folder="other")
    assert await finder.find("a.mp4") == known
    await know(checkpoints, 2, "a.mp4", folder="a third")
    with pytest.raises(RefusedError, match="several folders"):
        await finder.find("a.mp4")


async def test_the_history_of_a_path_is_newest_first(
    checkpoints: FakeCheckpointStore, finder: Finder, watched: Path
) -> None:
    assert "mark" in names_of(str(watched), "")
    streams = [await know(checkpoints, number, "a.mp4") for number in (1, 2, 3)]
    await know(checkpoints, 4, "b.mp4")
    assert await finder.history("a.mp4", 10) == streams[::-1]
    assert await finder.history("a.mp4", 2) == streams[:0:-1]
    assert await finder.history("c.mp4", 10) == []
    older = await know(checkpoints, 0, "a.mp4", folder="")
    assert await finder.history("a.mp4", 10) == [*streams[::-1], older]


async def test_a_history_that_bites_its_tail_ends(
    checkpoints: FakeCheckpointStore, finder: Finder
) -> None:
    """Whoever may write to Redis writes what he likes."""
    first = await know(checkpoints, 1, "a.mp4")
    second = await know(checkpoints, 2, "a.mp4")
    lease = await checkpoints.claim(first, "me")
    assert lease is not None
    await checkpoints.save(replace(first, previous_id=second.id), lease)
    assert len(await finder.history("a.mp4", 100)) == 2
