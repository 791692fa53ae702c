"""Which folder is watched: the same one, another one, or none for now."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.fake_checkpoints import FakeCheckpointStore

from cefmp4.errors import SettingsError
from cefmp4.ingest import folder as folder_module
from cefmp4.ingest.folder import FolderFinder, FoundFolder
from cefmp4.model.part import MIB
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.stamps import stamp_of
from cefmp4.tasks import cancel_all
from cefmp4.watch.folder_marks import ATTRIBUTE, MARK_FILE


@dataclass
class Place:
    """A path at which folders come and go."""

    root: Path
    checkpoints: FakeCheckpointStore = field(default_factory=FakeCheckpointStore)

    def finder(self, *, named: str = "", host: str = "here") -> FolderFinder:
        return FolderFinder(
            root=str(self.root), named=named, host=host, checkpoints=self.checkpoints
        )

    async def find(self, *, named: str = "", host: str = "here") -> FoundFolder:
        async with asyncio.timeout(5):
            return await self.finder(named=named, host=host).find()

    async def waits_for(self, **how: str) -> str:
        finder = self.finder(**how)
        task = asyncio.create_task(finder.find())
        async with asyncio.timeout(5):
            while not finder.waiting_for and not task.done():  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
        assert not task.done()
        await cancel_all([task])
        return finder.waiting_for

    async def remember(self, folder: str, name: str = "a.mp4", **fields: object) -> Stream:
        stamp = stamp_of((self.root / name).stat())
        stream = Stream(
            id=f"id-{name}", relpath=name, folder=folder, part_base=10 * MIB, stamp=stamp,
            size=stamp.size, state=StreamState.DESCRIBED,
        )  # fmt: skip
        lease = await self.checkpoints.claim(stream, "me")
        assert lease is not None
        await self.checkpoints.release(lease)
        return stream

    def replace_by(self, *names: str) -> None:
        """Another folder is at this path now."""
        self.root.rename(self.root.with_name(f"former-{self.root.name}-{len(names)}"))
        self.root.mkdir()
        for name in names:
            (self.root / name).write_bytes(b"new")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(folder_module, "LOOK_EVERY_S", 0.02)
    root = tmp_path / "w"
    root.mkdir()
    (root / "a.mp4").write_bytes(b"recording")
    return Place(root)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def apply() -> None:
        monkeypatch.setattr(folder_module, "leave_mark", lambda root, mark: "")

    return apply


async def test_it_is_the_same_for_all_hosts_and_after_a_restart(place: Place) -> None:
    first = await place.find()
    place.checkpoints.wipe()
    assert (await place.find(host="another")).folder == first.folder
    assert first.folder.id


async def test_a_path_where_nothing_was_watched_must_be_there(place: Place) -> None:
    place.root = place.root.with_name("none")
    with pytest.raises(SettingsError, match="does not exist"):
        await place.find()


async def test_a_name_of_the_settings_counts_and_the_mark_is_known_too(place: Place) -> None:
    marked = (await place.find()).folder.id
    named = await place.find(named="cam-1")
    assert named.folder.id == "cam-1"
    assert named.folder.is_called(marked)
    assert not named.folder.is_called("somebody's")


async def test_an_empty_folder_instead_of_it_is_waited_for(place: Place) -> None:
    found = await place.find()
    await place.remember(found.folder.id)
    place.replace_by()
    assert "is empty or not mounted, 1 recordings are known in it" in await place.waits_for()
    assert await place.checkpoints.load_notes() != {}
    assert os.listdir(place.root) == []
    with pytest.raises(OSError, match="No data"):
        os.getxattr(place.root, ATTRIBUTE)


async def test_what_an_emptied_redis_is_told_again_counts(place: Place) -> None:
    finder = place.finder()
    found = await finder.find()
    place.checkpoints.wipe()
    await finder.remember_again()
    await place.remember(found.folder.id)
    place.replace_by()
    assert "is empty or not mounted" in await place.waits_for()


async def test_a_missing_folder_is_waited_for(place: Place) -> None:
    await place.find()
    place.root.rename(place.root.with_name("away"))
    assert "does not exist" in await place.waits_for()


async def test_with_a_name_an_empty_folder_instead_of_it_is_waited_for(place: Place) -> None:
    await place.find(named="cam-1")
    await place.remember("cam-1")
    place.replace_by()
    assert "is empty or not mounted" in await place.waits_for(named="cam-1")


async def test_without_a_mark_an_empty_folder_instead_of_it_is_waited_for(
    place: Place, read_only: Callable[[], None]
) -> None:
    read_only()
    found = await place.find()
    assert found.folder.id.startswith("fs-")
    await place.remember(found.folder.id)
    assert (await place.find()).folder == found.folder
    place.replace_by()
    assert "is empty or not mounted" in await place.waits_for()


async def test_any_file_says_that_it_is_meant_to_be_empty(place: Place) -> None:
    found = await place.find()
    await place.remember(found.folder.id)
    place.replace_by("readme")
    assert (await place.find()).folder.id != found.folder.id


async def test_with_its_mark_it_may_be_empty(place: Place) -> None:
    found = await place.find()
    await place.remember(found.folder.id)
    (place.root / "a.mp4").unlink()
    assert (await place.find()).folder == found.folder


async def test_nobody_waits_for_a_folder_without_recordings(place: Place) -> None:
    found = await place.find()
    place.replace_by()
    assert (await place.find()).folder.id != found.folder.id


async def test_a_folder_that_lost_its_mark_is_known_by_its_files(place: Place) -> None:
    found = await place.find()
    await place.remember(found.folder.id)
    former = place.root.stat()
    stamp = (place.root / "a.mp4").stat()
    place.replace_by("a.mp4")
    (place.root / "a.mp4").write_bytes(b"recording")
    os.utime(place.root / "a.mp4", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    again = await place.find()
    assert again.folder.id == found.folder.id
    assert again.place != (former.st_dev, former.st_ino)


async def test_a_mark_file_that_was_deleted_is_left_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "no attributes here")

    monkeypatch.setattr(os, "setxattr", refuse)
    found = await place.find()
    (place.root / MARK_FILE).unlink()
    assert (await place.find()).folder == found.folder
    assert (place.root / MARK_FILE).read_text() == found.folder.id


async def test_a_folder_that_can_be_marked_at_last_keeps_its_name(
    place: Place, read_only: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "leave_mark", lambda root, mark: "")
        unmarked = await place.find()
    assert (await place.find()).folder.id == unmarked.folder.id


async def test_a_folder_that_another_host_marked_was_known_by_what_it_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "leave_mark", lambda root, mark: "")
        unmarked = await place.find(host="read-only")
    marked = await place.find(host="another")
    again = await place.find(host="read-only")
    assert again.folder.id == marked.folder.id
    assert again.folder.is_called(unmarked.folder.id)


async def test_mounts_are_remembered_while_nothing_lies_in_their_place(place: Place) -> None:
    for name in ("empty", "full"):
        (place.root / name).mkdir()
    (place.root / "full" / "x").touch()
    finder = place.finder()
    await finder.find()
    await finder.remember_mounts(["gone", "empty", "full"])
    assert (await place.find()).mounts == {"gone", "empty"}


async def test_it_is_away_when_another_is_there(place: Place) -> None:
    finder = place.finder()
    found = await finder.find()
    assert not await finder.is_away(found)
    place.replace_by("b.mp4")
    assert await finder.is_away(found)
