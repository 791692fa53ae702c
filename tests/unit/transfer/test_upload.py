"""Files become objects whole or not at all; what the store has is not sent again, and nothing is
written over without being told to."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fake_store import FULL_PROOF, FakeObjectStore

from cefmp4.errors import (
    AccessDeniedError,
    KeyTakenError,
    PermanentError,
    ServerUnreachableError,
    UploadGoneError,
)
from cefmp4.model.names import META_CRC64, META_STREAM_ID
from cefmp4.model.part import PartPlan
from cefmp4.recording.digests import crc_of
from cefmp4.retry import no_waiting
from cefmp4.transfer import Status, Transferred, upload_files
from cefmp4.transfer.notes import UploadNotes

PLAN = PartPlan(100)
DATA = os.urandom(1000)


@pytest.fixture
def notes(tmp_path: Path) -> UploadNotes:
    return UploadNotes(tmp_path / "notes", "here")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def store() -> FakeObjectStore:
    return FakeObjectStore(min_part_bytes=0)


def statuses(results: list[Transferred]) -> dict[str, Status]:
    return {result.path: result.status for result in results}


def fill(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def left(notes: UploadNotes) -> list[str]:
    return os.listdir(notes.folder) if notes.folder and notes.folder.exists() else []


async def send(
    store: FakeObjectStore, file: Path, notes: UploadNotes, *, overwrite: bool = False
) -> Transferred:
    (result,) = await upload_files(store, [file], plan=PLAN, notes=notes, overwrite=overwrite)
    return result


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
async def test_one(store: FakeObjectStore, file: Path, notes: UploadNotes, size: int) -> None:
    fill(file, DATA[:size])
    result = await send(store, file, notes)
    assert (result.status, result.bytes, result.moved) == (Status.DONE, size, size), result
    assert store.data("a.mp4") == DATA[:size]
    stored = await store.head("a.mp4")
    assert stored is not None
    assert stored.content_type == "video/mp4"
    assert stored.metadata[META_CRC64] == f"{crc_of(DATA[:size]):016x}"
    again = await send(store, file, notes)
    assert (again.status, again.moved) == (Status.PRESENT, 0)
    assert not store.open_uploads
    assert left(notes) == []


async def test_one_that_fails_stops_no_other(store: FakeObjectStore, file: Path) -> None:
    missing = file.with_name("missing.mp4")
    results = await upload_files(store, [missing, file], prefix="in", plan=PLAN)
    assert statuses(results) == {str(missing): Status.FAILED, str(file): Status.DONE}
    assert store.keys == ["in/a.mp4"]


async def test_a_folder_stands_for_all_below_it(store: FakeObjectStore, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"a")
    (folder / "sub/b").write_bytes(b"b")
    (folder / "link").symlink_to("a")
    (folder / "away").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    (folder / ".cefmp4").mkdir()
    (folder / ".cefmp4/credentials.json").write_bytes(b"secret")
    (folder / "sub/.env").write_bytes(b"secret")
    results = await upload_files(store, [folder], prefix="p/")
    assert store.keys == ["p/a", "p/sub/b"]
    told = statuses(results)
    assert {path.removeprefix(f"{folder}/"): status for path, status in told.items()} == {
        "a": Status.DONE,
        "sub/b": Status.DONE,
        "link": Status.SKIPPED,
        "away": Status.SKIPPED,
        "pipe": Status.FAILED,
        ".cefmp4": Status.SKIPPED,
        "sub/.env": Status.SKIPPED,
    }


async def test_a_link_that_was_named_is_what_it_leads_to(
    store: FakeObjectStore, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.mp4").symlink_to(file)
    (result,) = await upload_files(store, [tmp_path / "link.mp4"], plan=PLAN)
    assert result.status is Status.DONE
    assert store.data("link.mp4") == DATA


@pytest.mark.parametrize("path", ["", "a\0b"])
async def test_no_path(store: FakeObjectStore, path: str) -> None:
    (result,) = await upload_files(store, [path])
    assert result.has_failed
    assert store.keys == []


async def test_an_empty_folder_has_failed(store: FakeObjectStore, tmp_path: Path) -> None:
    (result,) = await upload_files(store, [tmp_path])
    assert result.has_failed


@pytest.mark.parametrize("size", [50, 1000])
async def test_another_object_stays_unless_it_may_go(
    store: FakeObjectStore, file: Path, notes: UploadNotes, size: int
) -> None:
    fill(file, DATA[:size])
    await put(store, b"theirs", {})
    assert (await send(store, file, notes)).has_failed
    assert store.data("a.mp4") == b"theirs"
    assert (await send(store, file, notes, overwrite=True)).status is Status.DONE
    assert store.data("a.mp4") == DATA[:size]


async def put(store: FakeObjectStore, data: bytes, metadata: dict[str, str]) -> None:
    await store.put_object("a.mp4", data, content_type="", metadata=metadata, crc64=crc_of(data))


@pytest.mark.parametrize("size", [50, 1000])
async def test_a_recording_is_never_written_over(
    store: FakeObjectStore, file: Path, notes: UploadNotes, size: int
) -> None:
    fill(file, DATA[:size])
    await put(store, b"a recording", {META_STREAM_ID: "s"})
    result = await send(store, file, notes, overwrite=True)
    assert "a recording lies there" in result.reason
    assert store.data("a.mp4") == b"a recording"


async def test_only_missing_parts_are_sent(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    store.fail("complete_upload", PermanentError("cut off"))
    assert (await send(store, file, notes)).reason == "cut off"
    (upload_id,) = store.open_uploads
    assert len(left(notes)) == 1
    for number in (3, 7):  # one was never there, one is of other bytes
        parts = store._uploads[upload_id].parts
        parts[number] = bytes(len(parts[number])) if number == 3 else parts[number]
    del store._uploads[upload_id].parts[7]
    result = await send(store, file, notes)
    assert (result.status, result.bytes, result.moved) == (Status.DONE, 1000, 200)
    assert store.data("a.mp4") == DATA
    assert not store.open_uploads
    assert left(notes) == []


async def test_what_was_begun_for_other_bytes_is_aborted(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    store.fail("complete_upload", PermanentError("cut off"))
    await send(store, file, notes)
    fill(file, DATA + b"more")
    result = await send(store, file, notes)
    assert (result.status, result.moved) == (Status.DONE, 1004)
    stored = await store.head("a.mp4")
    assert stored is not None
    assert stored.metadata[META_CRC64] == f"{crc_of(DATA + b'more'):016x}"
    assert not store.open_uploads


async def test_an_upload_that_the_store_has_thrown_away_begins_anew(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    store.fail("complete_upload", PermanentError("cut off"))
    await send(store, file, notes)
    store._uploads.clear()
    assert (await send(store, file, notes)).moved == 1000
    fill(file, DATA[::-1])
    store.fail("put_part", UploadGoneError("thrown away"))
    assert (await send(store, file, notes, overwrite=True)).status is Status.DONE
    assert store.data("a.mp4") == DATA[::-1]


async def test_without_notes_nothing_of_others_is_touched(
    store: FakeObjectStore, file: Path
) -> None:
    await store.begin_upload("a.mp4", content_type="", metadata={})
    (result,) = await upload_files(store, [file], plan=PLAN)
    assert result.status is Status.DONE
    assert len(store.open_uploads) == 1


async def test_an_object_whose_upload_is_still_open_is_completed_once_more(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    """As a server leaves it that failed in the middle of Complete: an abort would take its bytes
    from the object."""
    store.fail("complete_upload", PermanentError("cut off"))
    await send(store, file, notes)
    await put(store, DATA, {})
    store.calls.clear()
    result = await send(store, file, notes)
    assert (result.status, result.moved) == (Status.DONE, 0)
    assert store.calls["abort_upload"] == 0
    assert store.calls["complete_upload"] == 2
    assert not store.open_uploads


async def test_somebody_who_was_faster_is_not_written_over(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    with store.pause("complete_upload") as gate:
        sending = asyncio.create_task(send(store, file, notes))
        await gate.reached.wait()
        await put(store, b"faster", {})
    result = await sending
    assert result.has_failed
    assert store.data("a.mp4") == b"faster"
    assert not store.open_uploads
    assert left(notes) == []


async def test_an_answer_that_was_lost_is_no_failure(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    fill(file, b"short")
    store.lose_answer("put_object", KeyTakenError("so it seems"))
    assert (await send(store, file, notes)).status is Status.DONE


async def test_a_file_that_is_being_written_is_not_sent(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    with store.pause("put_part") as gate:
        sending = asyncio.create_task(send(store, file, notes))
        await gate.reached.wait()
        with file.open("r+b") as writer:
            writer.seek(950)
            writer.write(b"patched")
    result = await sending
    assert "changed" in result.reason
    assert store.keys == []
    assert (await send(store, file, notes)).status is Status.DONE


async def test_a_store_that_is_away_for_a_moment_costs_nothing(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    for operation in ("head", "begin_upload", "put_part", "complete_upload"):
        store.fail(operation, ServerUnreachableError("away"), times=2)
    with no_waiting():
        assert (await send(store, file, notes)).status is Status.DONE


async def test_what_the_store_refuses_is_told(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    store.fail("begin_upload", AccessDeniedError("you may not"))
    assert (await send(store, file, notes)).reason == "you may not"
    assert left(notes) == []


async def test_two_at_once_do_not_meet(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    with store.pause("put_part") as gate:
        first = asyncio.create_task(send(store, file, notes))
        await gate.reached.wait()
        assert "another process" in (await send(store, file, notes)).reason
    assert (await first).status is Status.DONE


async def test_a_cancel_leaves_what_the_next_goes_on_with(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    with store.pause("complete_upload") as gate:
        sending = asyncio.create_task(send(store, file, notes))
        await gate.reached.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert len(store.open_uploads) == 1
    result = await send(store, file, notes)
    assert (result.status, result.moved) == (Status.DONE, 0)


async def test_parts_that_cannot_be_compared_are_sent_again(file: Path, notes: UploadNotes) -> None:
    store = FakeObjectStore(min_part_bytes=0, proof=replace(FULL_PROOF, etag_is_md5=False))
    store.fail("complete_upload", PermanentError("cut off"))
    await send(store, file, notes)
    assert (await send(store, file, notes)).moved == 1000


async def test_a_note_that_is_none_begins_anew(
    store: FakeObjectStore, file: Path, notes: UploadNotes
) -> None:
    store.fail("complete_upload", PermanentError("cut off"))
    await send(store, file, notes)
    assert notes.folder is not None
    (note,) = notes.folder.iterdir()
    for text in (b"", b"\xff\n", b"one line", b"a\nb\nc\n", b"x" * 10_000):
        note.write_bytes(text)
        store.fail("complete_upload", PermanentError("cut off"))
        assert (await send(store, file, notes)).reason == "cut off"


async def test_where_nothing_can_be_noted(
    store: FakeObjectStore, file: Path, tmp_path: Path
) -> None:
    result = await send(store, file, UploadNotes(file / "notes"))
    assert "STATE_DIR" in result.reason
    assert not store.open_uploads
    fill(tmp_path / "short", b"short")
    assert not (await send(store, tmp_path / "short", UploadNotes(file / "notes"))).has_failed


async def test_two_files_never_go_to_one_key(store: FakeObjectStore, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_bytes(folder.encode())
    results = await upload_files(store, [tmp_path / "x/a", tmp_path / "y/a"], overwrite=True)
    assert statuses(results) == {
        str(tmp_path / "x/a"): Status.DONE,
        str(tmp_path / "y/a"): Status.FAILED,
    }
    assert store.data("a") == b"x"
