"""Objects come whole or not at all, each on its own, and what is there is not fetched again."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.support.fake_store import FULL_PROOF, FakeObjectStore

from cefmp4.errors import AccessDeniedError, PermanentError, ServerUnreachableError
from cefmp4.recording.digests import crc_of
from cefmp4.retry import no_waiting
from cefmp4.transfer import Status, Transferred, download, download_files

DATA = os.urandom(1000)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PIECE_BYTES", 100)


async def stored(**objects: bytes) -> FakeObjectStore:
    store = FakeObjectStore(min_part_bytes=0)
    for key, data in objects.items():
        await put(store, key, data)
    return store


async def put(store: FakeObjectStore, key: str, data: bytes) -> None:
    await store.put_object(key, data, content_type="", metadata={}, crc64=crc_of(data))


def statuses(results: list[Transferred]) -> dict[str, Status]:
    return {result.key: result.status for result in results}


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def parts_in(folder: Path) -> list[Path]:
    return list(folder.rglob(".cefmp4-*.part"))


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
async def test_one(tmp_path: Path, size: int) -> None:
    store = await stored(a=DATA[:size])
    counted: list[int] = []
    (result,) = await download_files(store, ["a"], to=tmp_path, on_bytes=counted.append)
    assert result.status is Status.DONE
    assert (result.bytes, result.moved, sum(counted)) == (size, size, size)
    assert (tmp_path / "a").read_bytes() == DATA[:size]
    assert os.listdir(tmp_path) == ["a"]
    (again,) = await download_files(store, ["a"], to=tmp_path)
    assert (again.status, again.moved) == (Status.PRESENT, 0)


async def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    store = await stored(a=b"a", c=b"c")
    results = await download_files(store, ["a", "b", "c"], to=tmp_path)
    assert statuses(results) == {"a": Status.DONE, "b": Status.FAILED, "c": Status.DONE}
    (failed,) = [result for result in results if result.has_failed]
    assert "no such object" in failed.reason


async def test_the_folders_below_a_prefix_are_kept(tmp_path: Path) -> None:
    store = FakeObjectStore()
    for key in ("p/a", "p/q/b", "p/q/", "pp/c", "d"):
        await put(store, key, key.encode())
    results = await download_files(store, ["p/"], to=tmp_path)
    assert statuses(results) == {"p/a": Status.DONE, "p/q/b": Status.DONE, "p/q/": Status.SKIPPED}
    assert (tmp_path / "q/b").read_bytes() == b"p/q/b"
    everything = await download_files(store, ["/"], to=tmp_path / "all")
    assert sum(result.status is Status.DONE for result in everything) == 4
    assert (tmp_path / "all/p/q/b").read_bytes() == b"p/q/b"


async def test_a_prefix_of_nothing_has_failed(tmp_path: Path) -> None:
    (result,) = await download_files(await stored(), ["p/"], to=tmp_path)
    assert result.has_failed


async def test_a_listing_that_breaks_off_is_told(tmp_path: Path) -> None:
    store = await stored(a=b"a")
    store.fail("list_objects", AccessDeniedError("no"))
    results = await download_files(store, ["p/", "a"], to=tmp_path)
    assert statuses(results) == {"p/": Status.FAILED, "a": Status.DONE}


@pytest.mark.parametrize("key", ["p/../x", "p//x", "p/a\0b", "p/.."])
async def test_hostile_keys_write_nothing(tmp_path: Path, key: str) -> None:
    store = FakeObjectStore()
    await put(store, key, b"evil")
    await put(store, "p/good", b"good")
    folder = tmp_path / "to"
    results = await download_files(store, ["p/"], to=folder)
    assert statuses(results) == {key: Status.FAILED, "p/good": Status.DONE}
    assert files_in(tmp_path) == ["to", "to/good"]


@pytest.mark.parametrize("key", ["", "\udcff", "a" * 1025])
async def test_what_can_be_no_key_is_asked_of_nobody(tmp_path: Path, key: str) -> None:
    store = FakeObjectStore()
    (result,) = await download_files(store, [key], to=tmp_path)
    assert result.has_failed
    assert not store.calls


async def test_a_link_below_the_folder_leads_nowhere(tmp_path: Path) -> None:
    store = FakeObjectStore()
    await put(store, "p/sub/a", b"evil")
    (tmp_path / "to").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "to/sub").symlink_to(tmp_path / "elsewhere")
    (result,) = await download_files(store, ["p/"], to=tmp_path / "to", overwrite=True)
    assert result.has_failed
    assert "link" in result.reason
    assert os.listdir(tmp_path / "elsewhere") == []


async def test_another_file_stays_unless_it_may_go(tmp_path: Path) -> None:
    store = await stored(a=DATA)
    (tmp_path / "a").write_bytes(b"mine")
    (result,) = await download_files(store, ["a"], to=tmp_path)
    assert result.has_failed
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert store.calls["read"] == 0
    (result,) = await download_files(store, ["a"], to=tmp_path, overwrite=True)
    assert result.status is Status.DONE
    assert (tmp_path / "a").read_bytes() == DATA


@pytest.mark.parametrize("overwrite", [True, False])
async def test_two_objects_never_go_to_one_name(tmp_path: Path, overwrite: bool) -> None:
    store = FakeObjectStore()
    await put(store, "p/a", b"p")
    await put(store, "q/a", b"q")
    results = await download_files(store, ["p/a", "q/a"], to=tmp_path, overwrite=overwrite)
    assert statuses(results) == {"p/a": Status.DONE, "q/a": Status.FAILED}
    assert (tmp_path / "a").read_bytes() == b"p"


async def test_only_what_is_missing_is_fetched(tmp_path: Path) -> None:
    store = await stored(a=DATA)
    store.fail("read", PermanentError("cut off"))
    (failed,) = await download_files(store, ["a"], to=tmp_path, at_once=1)
    assert failed.reason == "cut off"
    assert not (tmp_path / "a").exists()
    (part,) = parts_in(tmp_path)
    part.write_bytes(DATA[:730])
    store.calls.clear()
    (done,) = await download_files(store, ["a"], to=tmp_path)
    assert (done.status, done.moved, store.calls["read"]) == (Status.DONE, 270, 3)
    assert (tmp_path / "a").read_bytes() == DATA
    assert parts_in(tmp_path) == []


async def test_a_part_that_was_damaged_meanwhile_is_fetched_again(tmp_path: Path) -> None:
    store = await stored(a=DATA)
    store.fail("read", PermanentError("cut off"))
    await download_files(store, ["a"], to=tmp_path, at_once=1)
    (part,) = parts_in(tmp_path)
    part.write_bytes(bytes(730))
    (done,) = await download_files(store, ["a"], to=tmp_path)
    assert (done.status, done.moved) == (Status.DONE, 270 + 1000)
    assert (tmp_path / "a").read_bytes() == DATA


class LyingStore(FakeObjectStore):
    async def read(
        self, key: str, start: int = 0, end: int | None = None, *, etag: str = ""
    ) -> bytes:
        return bytes(len(await super().read(key, start, end, etag=etag)))


async def test_other_bytes_than_the_object_has_get_no_name(tmp_path: Path) -> None:
    store = LyingStore()
    await put(store, "a", DATA)
    (result,) = await download_files(store, ["a"], to=tmp_path)
    assert result.has_failed
    assert os.listdir(tmp_path) == []


class ChangingStore(FakeObjectStore):
    async def read(
        self, key: str, start: int = 0, end: int | None = None, *, etag: str = ""
    ) -> bytes:
        if start:
            await put(self, key, DATA[::-1])
        return await super().read(key, start, end, etag=etag)


async def test_two_objects_are_never_mixed(tmp_path: Path) -> None:
    store = ChangingStore()
    await put(store, "a", DATA)
    (result,) = await download_files(store, ["a"], to=tmp_path)
    assert "replaced" in result.reason
    assert os.listdir(tmp_path) == []


class ShortStore(FakeObjectStore):
    async def read(
        self, key: str, start: int = 0, end: int | None = None, *, etag: str = ""
    ) -> bytes:
        return (await super().read(key, start, end, etag=etag))[:-1]


async def test_a_store_that_gives_less_is_not_believed(tmp_path: Path) -> None:
    store = ShortStore()
    await put(store, "a", DATA)
    (result,) = await download_files(store, ["a"], to=tmp_path)
    assert result.reason == "the store gave 99 of 100 bytes"


async def test_a_store_that_is_away_for_a_moment_costs_nothing(tmp_path: Path) -> None:
    store = await stored(a=DATA)
    for operation in ("head", "read"):
        store.fail(operation, ServerUnreachableError("away"), times=3)
    with no_waiting():
        (result,) = await download_files(store, ["a"], to=tmp_path)
    assert (result.status, result.moved) == (Status.DONE, 1000)


async def test_memory_is_bounded_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    store, most = Counting(), 0
    for number in range(12):
        await put(store, f"p/{number}", DATA)
    results = await download_files(store, ["p/"], to=tmp_path, at_once=3)
    assert {result.status for result in results} == {Status.DONE}
    assert len(results) == 12
    most = store.most
    assert 1 < most <= 3


class Counting(FakeObjectStore):
    def __init__(self) -> None:
        super().__init__(proof=FULL_PROOF)
        self.reading = self.most = 0

    async def read(
        self, key: str, start: int = 0, end: int | None = None, *, etag: str = ""
    ) -> bytes:
        self.reading += 1
        self.most = max(self.most, self.reading)
        try:
            await asyncio.sleep(0)
            return await super().read(key, start, end, etag=etag)
        finally:
            self.reading -= 1


async def test_a_cancel_leaves_what_came_and_lets_go_of_it(tmp_path: Path) -> None:
    store = await stored(a=DATA)
    with store.pause("read") as gate:
        running = asyncio.create_task(download_files(store, ["a"], to=tmp_path, at_once=1))
        await gate.reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert len(parts_in(tmp_path)) == 1
    (result,) = await download_files(store, ["a"], to=tmp_path)
    assert result.status is Status.DONE


async def test_an_empty_list(tmp_path: Path) -> None:
    assert await download_files(await stored(), [], to=tmp_path / "new") == []
    assert (tmp_path / "new").is_dir()
