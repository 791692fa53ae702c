"""What every object store promises, the fake as well as a real S3 server."""

import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from awscrt.checksums import combine_crc64nvme, crc64nvme
from tests.support.fake_store import FakeObjectStore
from tests.support.servers import SwiftServer
from tests.support.tls import tls_front

from cefmp4.errors import CefError, KeyTakenError, ProofFailedError, UploadGoneError
from cefmp4.model.names import META_CRC64
from cefmp4.model.object import FileRange, StoredObject
from cefmp4.model.part import MIN_PART_BYTES, Part
from cefmp4.ports.store import ObjectStore
from cefmp4.storage.s3.store import open_s3_store

KEY = "streams/20260101T000000Z-0000aaaa/clip ü 'a+b&c' 100%.mp4"
HEAD = MIN_PART_BYTES
TAIL = 1000
MakeFile = Callable[[bytes], int]


@pytest.fixture(
    params=[
        "fake",
        pytest.param("http", marks=pytest.mark.integration),
        pytest.param("tls", marks=pytest.mark.integration),
    ]
)
def way(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def server(way: str, request: pytest.FixtureRequest) -> SwiftServer | None:
    """None stands for the fake. Not asynchronous: only so can it ask for a fixture by name."""
    if way == "fake":
        return None
    found: SwiftServer = request.getfixturevalue("s3_server")
    return found


@pytest.fixture
async def store(
    server: SwiftServer | None, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    if server is None:
        yield FakeObjectStore()
        return
    config = server.config(await server.new_bucket())
    async with AsyncExitStack() as stack:
        if way == "tls":
            front = await stack.enter_async_context(tls_front(server.endpoint_url, tmp_path))
            config = replace(config, endpoint_url=front[0])
            monkeypatch.setenv("AWS_CA_BUNDLE", str(front[1]))
        yield await stack.enter_async_context(open_s3_store(config))


@pytest.fixture
def file_of(tmp_path: Path, request: pytest.FixtureRequest) -> MakeFile:
    """Writes a file and returns a descriptor of it that is closed after the test."""

    def make(data: bytes) -> int:
        path = tmp_path / secrets.token_hex(4)
        path.write_bytes(data)
        fd = os.open(path, os.O_RDWR)
        request.addfinalizer(lambda: os.close(fd))
        return fd

    return make


async def send(
    store: ObjectStore, upload_id: str, number: int, fd: int, start: int, end: int, key: str = KEY
) -> Part:
    crc64 = crc64nvme(os.pread(fd, end - start, start))
    body = FileRange(fd, start, end - start)
    etag = await store.put_part(key, upload_id, number, body, crc64=crc64)
    return Part(number=number, size=end - start, crc64=crc64, etag=etag, uploaded_at=0.0)


def crc_of(parts: list[Part]) -> int:
    whole = 0
    for part in parts:
        whole = combine_crc64nvme(whole, part.crc64, part.size)
    return whole


async def begin(store: ObjectStore, key: str = KEY) -> str:
    return await store.begin_upload(
        key, content_type="video/mp4", metadata={"cefmp4-stream-id": "x"}
    )


async def two_parts(store: ObjectStore, fd: int) -> tuple[str, list[Part]]:
    upload_id = await begin(store)
    second = await send(store, upload_id, 2, fd, HEAD, HEAD + TAIL)  # out of order on purpose
    return upload_id, [await send(store, upload_id, 1, fd, 0, HEAD), second]


async def test_parts_become_the_object(store: ObjectStore, file_of: MakeFile) -> None:
    data = os.urandom(HEAD + TAIL)
    upload_id, parts = await two_parts(store, file_of(data))
    assert await store.head(KEY) is None
    etag = await store.complete_upload(KEY, upload_id, parts, crc64=crc_of(parts))

    stored = await store.head(KEY)
    assert stored is not None
    assert (stored.size, stored.etag, stored.content_type) == (len(data), etag, "video/mp4")
    assert stored.metadata["cefmp4-stream-id"] == "x"
    assert stored.crc64 in {None, crc64nvme(data)}
    assert await store.read(KEY) == data


async def test_a_part_sent_again_replaces_the_former(store: ObjectStore, file_of: MakeFile) -> None:
    data = bytearray(os.urandom(HEAD + TAIL))
    fd = file_of(bytes(data))
    upload_id, parts = await two_parts(store, fd)
    data[10:20] = b"patched..."
    os.pwrite(fd, data[:HEAD], 0)
    stale = list(parts)
    parts[0] = await send(store, upload_id, 1, fd, 0, HEAD)

    with pytest.raises(ProofFailedError):
        await store.complete_upload(KEY, upload_id, stale, crc64=crc_of(stale))
    await store.complete_upload(KEY, upload_id, parts, crc64=crc_of(parts))
    assert await store.read(KEY) == data


async def test_other_bytes_than_were_hashed_are_refused(
    store: ObjectStore, file_of: MakeFile
) -> None:
    fd = file_of(os.urandom(TAIL))
    upload_id = await begin(store)
    with pytest.raises(ProofFailedError):
        await store.put_part(KEY, upload_id, 1, FileRange(fd, 0, TAIL), crc64=crc64nvme(b"other"))
    assert await store.list_parts(KEY, upload_id) == []
    with pytest.raises(ProofFailedError):
        await store.put_object(
            KEY, FileRange(fd, 0, TAIL), content_type="video/mp4", metadata={}, crc64=1
        )
    assert await store.head(KEY) is None


async def test_a_file_that_became_shorter_is_refused(store: ObjectStore, file_of: MakeFile) -> None:
    data = os.urandom(TAIL)
    fd = file_of(data)
    upload_id = await begin(store)
    os.ftruncate(fd, TAIL // 2)
    with pytest.raises(ProofFailedError):
        await store.put_part(KEY, upload_id, 1, FileRange(fd, 0, TAIL), crc64=crc64nvme(data))
    assert await store.list_parts(KEY, upload_id) == []


async def test_parts_are_listed_with_their_holes(store: ObjectStore, file_of: MakeFile) -> None:
    fd = file_of(os.urandom(TAIL))
    upload_id = await begin(store)
    sent = [await send(store, upload_id, n, fd, 0, n * 10) for n in (7, 2, 31)]
    listed = await store.list_parts(KEY, upload_id)
    assert [(part.number, part.size) for part in listed] == [(2, 20), (7, 70), (31, 310)]
    assert {part.etag for part in listed} == {part.etag for part in sent}


async def test_small_parts_but_the_last_are_refused(store: ObjectStore, file_of: MakeFile) -> None:
    fd = file_of(os.urandom(TAIL))
    upload_id = await begin(store)
    parts = [await send(store, upload_id, n, fd, 0, TAIL) for n in (1, 2)]
    with pytest.raises(ProofFailedError):
        await store.complete_upload(KEY, upload_id, parts, crc64=crc_of(parts))
    assert await store.head(KEY) is None


async def test_completing_again_gives_the_same_answer(
    store: ObjectStore, file_of: MakeFile
) -> None:
    """As after an answer that was lost."""
    upload_id, parts = await two_parts(store, file_of(os.urandom(HEAD + TAIL)))
    etag = await store.complete_upload(KEY, upload_id, parts, crc64=crc_of(parts))
    assert await store.complete_upload(KEY, upload_id, parts, crc64=crc_of(parts)) == etag


async def test_an_upload_that_is_gone(store: ObjectStore, file_of: MakeFile) -> None:
    upload_id, parts = await two_parts(store, file_of(os.urandom(HEAD + TAIL)))
    await store.abort_upload(KEY, upload_id)
    await store.abort_upload(KEY, upload_id)
    with pytest.raises(UploadGoneError):
        await store.list_parts(KEY, upload_id)
    with pytest.raises(UploadGoneError):
        await send(store, upload_id, 1, file_of(b"x"), 0, 1)
    with pytest.raises(UploadGoneError):
        await store.complete_upload(KEY, upload_id, parts, crc64=crc_of(parts))


async def test_another_object_of_the_same_size_is_not_ours(
    store: ObjectStore, file_of: MakeFile
) -> None:
    upload_id, parts = await two_parts(store, file_of(os.urandom(HEAD + TAIL)))
    await store.abort_upload(KEY, upload_id)
    other_id, others = await two_parts(store, file_of(os.urandom(HEAD + TAIL)))
    await store.complete_upload(KEY, other_id, others, crc64=crc_of(others))
    with pytest.raises((UploadGoneError, ProofFailedError)):
        await store.complete_upload(KEY, upload_id, parts, crc64=crc_of(parts))


OURS = {"cefmp4-stream-id": "x"}
OTHERS = {"cefmp4-stream-id": "y"}


@pytest.mark.parametrize("size", [0, 1000, 12 * 1024 * 1024])
async def test_no_file_is_put_where_another_object_lies(
    store: ObjectStore, file_of: MakeFile, size: int
) -> None:
    data = os.urandom(size)
    body, crc64 = FileRange(file_of(data), 0, size), crc64nvme(data)

    async def put(metadata: dict[str, str], *, if_absent: bool = True) -> str:
        return await store.put_object(
            KEY, body, content_type="a/b", metadata=metadata, crc64=crc64, if_absent=if_absent
        )

    etag = await put(OURS)
    assert await put(OURS) == etag  # as after an answer that was lost
    with pytest.raises(KeyTakenError):
        await put(OTHERS)  # of the same bytes
    stored = await store.head(KEY)
    assert stored is not None
    assert stored.metadata["cefmp4-stream-id"] == "x"
    await put(OTHERS, if_absent=False)
    stored = await store.head(KEY)
    assert stored is not None
    assert stored.metadata["cefmp4-stream-id"] == "y"


async def test_bytes_are_not_put_where_another_object_lies(store: ObjectStore) -> None:
    async def put(body: bytes, metadata: dict[str, str]) -> None:
        await store.put_object(
            "d", body, content_type="", metadata=metadata, crc64=crc64nvme(body), if_absent=True
        )

    await put(b"one", OURS)
    await put(b"one", OURS)
    for body, metadata in ((b"two", OURS), (b"one", OTHERS), (b"one", {})):
        with pytest.raises(KeyTakenError):
            await put(body, metadata)
    assert await store.read("d") == b"one"


async def test_no_upload_is_completed_where_another_object_lies(
    store: ObjectStore, file_of: MakeFile
) -> None:
    fd = file_of(os.urandom(HEAD + TAIL))
    first_id, first = await two_parts(store, fd)
    second_id, second = await two_parts(store, fd)  # the same bytes, of another stream
    crc64 = crc_of(first)
    etag = await store.complete_upload(KEY, first_id, first, crc64=crc64, owner="x", if_absent=True)
    with pytest.raises((KeyTakenError, ProofFailedError)):
        await store.complete_upload(KEY, second_id, second, crc64=crc64, owner="y", if_absent=True)
    with pytest.raises(KeyTakenError):  # of a stream whose id nobody remembers
        await store.complete_upload(KEY, second_id, second, crc64=crc64, if_absent=True)
    assert [upload.upload_id for upload in await store.list_uploads(KEY)] == [second_id]
    for owner in ("x", ""):  # as after an answer that was lost
        again = await store.complete_upload(
            KEY, first_id, first, crc64=crc64, owner=owner, if_absent=True
        )
        assert again == etag
    with pytest.raises((UploadGoneError, ProofFailedError)):
        await store.complete_upload(KEY, first_id, first, crc64=crc64, owner="y", if_absent=True)


async def test_an_object_of_another_owner_is_no_proof(
    store: ObjectStore, file_of: MakeFile
) -> None:
    upload_id, parts = await two_parts(store, file_of(os.urandom(HEAD + TAIL)))
    with pytest.raises(ProofFailedError):
        await store.complete_upload(KEY, upload_id, parts, crc64=crc_of(parts), owner="y")


async def test_uploads_are_listed_by_prefix(store: ObjectStore) -> None:
    first, second = await begin(store), await begin(store)
    await begin(store, "elsewhere/a.mp4")
    listed = await store.list_uploads("streams/")
    assert {upload.upload_id for upload in listed} == {first, second}
    assert {upload.key for upload in listed} == {KEY}
    assert len(await store.list_uploads("")) == 3
    await store.abort_upload(KEY, first)
    assert [upload.upload_id for upload in await store.list_uploads("streams/")] == [second]


async def test_a_part_is_copied_from_an_object(store: ObjectStore, file_of: MakeFile) -> None:
    data = os.urandom(HEAD + TAIL)
    fd = file_of(data)
    upload_id, parts = await two_parts(store, fd)
    await store.complete_upload(KEY, upload_id, parts, crc64=crc_of(parts))
    source = await store.head(KEY)
    assert source is not None

    copy = "streams/b/copy.mp4"
    upload_id = await begin(store, copy)
    etag = await store.copy_part(copy, upload_id, 1, source=source, start=0, end=HEAD)
    copied = Part(number=1, size=HEAD, crc64=parts[0].crc64, etag=etag, uploaded_at=0.0)
    both = [copied, await send(store, upload_id, 2, fd, HEAD, HEAD + TAIL, copy)]
    await store.complete_upload(copy, upload_id, both, crc64=crc_of(both))
    assert await store.read(copy) == data


async def test_a_source_that_is_another_object_now_is_not_copied(store: ObjectStore) -> None:
    await put(store, "a.bin", b"one")
    source = await store.head("a.bin")
    assert source is not None
    await put(store, "a.bin", b"two")
    upload_id = await begin(store)
    with pytest.raises(ProofFailedError):
        await store.copy_part(KEY, upload_id, 1, source=source, start=0, end=3)
    gone = StoredObject(key="gone.bin", size=3, etag=source.etag)
    with pytest.raises(ProofFailedError):
        await store.copy_part(KEY, upload_id, 1, source=gone, start=0, end=3)


async def put(store: ObjectStore, key: str, body: bytes) -> str:
    return await store.put_object(
        key, body, content_type="application/json", metadata={}, crc64=crc64nvme(body)
    )


async def test_bytes_are_put_as_an_object(store: ObjectStore) -> None:
    etag = await put(store, "a/b.json", b"{}")
    stored = await store.head("a/b.json")
    assert stored is not None
    assert (stored.size, stored.etag) == (2, etag)
    assert stored.crc64 == crc64nvme(b"{}")
    assert stored.metadata[META_CRC64] == f"{stored.crc64:016x}"
    assert stored.content_type == "application/json"


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024])
async def test_a_file_is_put_as_an_object(store: ObjectStore, file_of: MakeFile, size: int) -> None:
    data = os.urandom(size + 200)
    fd, body = file_of(data), data[100 : 100 + size]
    await store.put_object(
        KEY,
        FileRange(fd, 100, size),
        content_type="video/mp4",
        metadata={"cefmp4-stream-id": "x"},
        crc64=crc64nvme(body),
    )
    stored = await store.head(KEY)
    assert stored is not None
    assert (stored.size, stored.crc64) == (size, crc64nvme(body))
    assert stored.metadata["cefmp4-stream-id"] == "x"
    assert await store.read(KEY) == body


async def test_ranges_are_read(store: ObjectStore) -> None:
    await put(store, "a.bin", b"0123456789")
    assert await store.read("a.bin", 2, 5) == b"234"
    assert await store.read("a.bin", 8) == b"89"
    assert await store.read("a.bin", 8, 100) == b"89"
    assert await store.read("a.bin", 10) == b""
    assert await store.read("a.bin", 3, 3) == b""
    with pytest.raises(CefError):
        await store.read("no such object")


async def test_another_object_is_not_read_for_the_one_that_was_meant(store: ObjectStore) -> None:
    await put(store, "a.bin", b"0123456789")
    stored = await store.head("a.bin")
    assert stored is not None
    assert await store.read("a.bin", 2, 5, etag=stored.etag) == b"234"
    await put(store, "a.bin", b"9876543210")
    with pytest.raises(ProofFailedError):
        await store.read("a.bin", 2, 5, etag=stored.etag)


async def test_objects_are_listed_by_prefix(store: ObjectStore) -> None:
    for name in ("b/2", "b/1 ü&<>", "c"):
        await put(store, name, name.encode())
    listed = [stored async for stored in store.list_objects("b/")]
    assert [(stored.key, stored.size) for stored in listed] == [("b/1 ü&<>", 9), ("b/2", 3)]
    first = await store.head("b/2")
    assert first is not None
    assert listed[1].etag == first.etag
    assert abs(listed[1].modified_at - first.modified_at) < 2


async def test_deleting_what_is_not_there_is_no_error(store: ObjectStore) -> None:
    await put(store, "a", b"1")
    await store.delete("a")
    await store.delete("a")
    assert await store.head("a") is None
