import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from awscrt.checksums import crc64nvme
from tests.support.stub_s3 import Reply, StubS3, Traits

from cefmp4 import metrics
from cefmp4.config.ingest import PartTransfer
from cefmp4.errors import (
    KeyTakenError,
    PermanentError,
    ProofFailedError,
    ServerUnreachableError,
    SourceError,
    ThrottledError,
    TransientError,
    UploadGoneError,
)
from cefmp4.model.names import META_STREAM_ID
from cefmp4.model.object import FileRange, PartProof, StoreProof
from cefmp4.model.part import MIB, Part
from cefmp4.reachability import S3
from cefmp4.retry import no_waiting
from cefmp4.storage.s3.store import S3Config, S3Store, open_s3_store

STREAM = "20260101T000000Z-0000aaaa"
DATA = os.urandom(300_000)
CRC = crc64nvme(DATA)
AWS = StoreProof(part=PartProof.CRC64NVME, full_object_crc=True, etag_is_md5=True)
SWIFT = StoreProof(part=PartProof.CRC64NVME, full_object_crc=False, etag_is_md5=True)
CEPH = StoreProof(part=PartProof.CONTENT_MD5, full_object_crc=False, etag_is_md5=True)
BARE = StoreProof(part=PartProof.ETAG, full_object_crc=False, etag_is_md5=True)
BLIND = StoreProof(part=PartProof.CRC64NVME, full_object_crc=False, etag_is_md5=False)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with no_waiting():
        yield


@pytest.fixture
async def stub() -> AsyncIterator[StubS3]:
    async with StubS3().running() as running:
        yield running


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(DATA)
    number = os.open(tmp_path / "file", os.O_RDWR)
    yield number
    os.close(number)


@asynccontextmanager
async def opened(
    stub: StubS3, proof: StoreProof = AWS, transfer: PartTransfer = PartTransfer.AUTO
) -> AsyncIterator[S3Store]:
    config = S3Config(
        endpoint_url=stub.endpoint_url,
        access_key="ACCESSKEY",
        secret="SECRETKEY",
        bucket="b",
        transfer=transfer,
    )
    async with open_s3_store(config, proof=proof) as store:
        yield store


async def send(store: S3Store, fd: int, *, owner: str = "") -> tuple[str, list[Part]]:
    metadata = {META_STREAM_ID: owner} if owner else {}
    upload_id = await store.begin_upload("k", content_type="video/mp4", metadata=metadata)
    etag = await store.put_part("k", upload_id, 1, FileRange(fd, 0, len(DATA)), crc64=CRC)
    part = Part(number=1, size=len(DATA), crc64=CRC, etag=etag, uploaded_at=0.0)
    return upload_id, [part]


@pytest.mark.parametrize("proof", [AWS, SWIFT, CEPH, BARE])
@pytest.mark.parametrize("transfer", list(PartTransfer))
async def test_every_way_stores_the_bytes(
    stub: StubS3, fd: int, proof: StoreProof, transfer: PartTransfer
) -> None:
    async with opened(stub, proof, transfer) as store:
        upload_id, parts = await send(store, fd)
        await store.complete_upload("k", upload_id, parts, crc64=CRC)
        assert await store.read("k") == DATA
        body = FileRange(fd, 0, len(DATA))
        await store.put_object("o", body, content_type="video/mp4", metadata={"a": "b"}, crc64=CRC)
        assert stub.objects["o"].data == DATA
        assert stub.objects["o"].headers["x-amz-meta-a"] == "b"
        assert stub.objects["o"].headers["Content-Type"] == "video/mp4"
    is_signed = ["X-Amz-Signature" in r.query for r in stub.requests if r.method == "PUT"]
    assert is_signed == [transfer is PartTransfer.AUTO] * 2


@pytest.mark.parametrize("proof", [AWS, CEPH])
@pytest.mark.parametrize("transfer", list(PartTransfer))
async def test_a_file_that_cannot_be_read_is_no_sick_server(
    stub: StubS3, fd: int, tmp_path: Path, proof: StoreProof, transfer: PartTransfer
) -> None:
    """Such as ESTALE on a network mount: a server would be asked again, for ever."""
    unreadable = os.open(tmp_path / "file", os.O_WRONLY)
    try:
        async with opened(stub, proof, transfer) as store:
            with pytest.raises(SourceError, match="the file cannot be read"):
                await send(store, unreadable)
    finally:
        os.close(unreadable)


@pytest.mark.parametrize("proof", [AWS, CEPH, BARE])
async def test_bytes_that_changed_after_hashing_are_refused(
    stub: StubS3, fd: int, proof: StoreProof
) -> None:
    async with opened(stub, proof) as store:
        os.pwrite(fd, b"patched", 1000)
        with pytest.raises(ProofFailedError):
            await send(store, fd)
        assert list(stub.uploads.values()) == [{}]


async def test_the_whole_is_proven_by_the_server_where_it_can(stub: StubS3, fd: int) -> None:
    async with opened(stub) as store:
        upload_id, parts = await send(store, fd)
        with pytest.raises(ProofFailedError):
            await store.complete_upload("k", upload_id, parts, crc64=CRC ^ 1)
        await store.complete_upload("k", upload_id, parts, crc64=CRC)
        stored = await store.head("k")
        assert stored is not None
        assert stored.crc64 == CRC


@pytest.mark.parametrize("proof", [AWS, SWIFT, BLIND])
async def test_an_object_that_differs_after_all_is_noticed(
    stub: StubS3, fd: int, proof: StoreProof
) -> None:
    stub.traits = Traits(loses_a_byte=True, checks_whole=False)
    async with opened(stub, proof) as store:
        upload_id, parts = await send(store, fd)
        with pytest.raises(ProofFailedError, match="bytes instead of"):
            await store.complete_upload("k", upload_id, parts, crc64=CRC)


@pytest.mark.parametrize("proof", [AWS, SWIFT])
async def test_complete_whose_answer_was_lost_is_done(
    stub: StubS3, fd: int, proof: StoreProof
) -> None:
    async with opened(stub, proof) as store:
        upload_id, parts = await send(store, fd)
        stub.answer("CompleteMultipartUpload", Reply(hangs_up=True, takes_effect=True))
        etag = await store.complete_upload("k", upload_id, parts, crc64=CRC)
        assert etag == stub.objects["k"].etag


async def test_complete_is_done_when_its_upload_is_closed(stub: StubS3, fd: int) -> None:
    """A server that fails in the middle of it has the object already, and the upload still."""
    async with opened(stub, SWIFT) as store:
        await store.complete_upload("k", *await send(store, fd), crc64=CRC)
        upload_id, parts = await send(store, fd)
        stub.answer("CompleteMultipartUpload", *[Reply(500, "InternalError")] * 4)
        with pytest.raises(TransientError):
            await store.complete_upload("k", upload_id, parts, crc64=CRC)
        await store.complete_upload("k", upload_id, parts, crc64=CRC)
        assert stub.uploads == {}


@pytest.mark.parametrize("is_honoured", [True, False])
async def test_complete_that_failed_half_way_is_done_again(
    stub: StubS3, fd: int, is_honoured: bool
) -> None:
    """The object is there by then, and shuts out a Complete that is only to make a new one."""
    proof = replace(SWIFT, complete_if_absent=is_honoured, keeps_metadata=True)
    async with opened(stub, proof) as store:
        upload_id, parts = await send(store, fd, owner=STREAM)
        half = Reply(503, "ServiceUnavailable", takes_effect=True, keeps_uploads=True)
        stub.answer("CompleteMultipartUpload", *[half] * 4)

        async def complete(*, if_absent: bool) -> str:
            return await store.complete_upload(
                "k", upload_id, parts, crc64=CRC, owner=STREAM, if_absent=if_absent
            )

        with pytest.raises(TransientError):
            await complete(if_absent=True)
        with pytest.raises(KeyTakenError):
            await complete(if_absent=True)
        assert await complete(if_absent=False) == stub.objects["k"].etag
        assert stub.uploads == {}


async def test_an_upload_that_was_begun_though_it_seemed_not_ends_with_the_other(
    stub: StubS3, fd: int
) -> None:
    """A full disk took no listing of it at first."""
    stub.answer("CreateMultipartUpload", Reply(503, "ServiceUnavailable", takes_effect=True))
    async with opened(stub, SWIFT) as store:
        key = f"streams/{STREAM}/r.mp4"
        upload_id = await store.begin_upload(key, content_type="video/mp4", metadata={})
        assert len(stub.uploads) == 2
        stub.traits.lists_uploads = True
        body = FileRange(fd, 0, len(DATA))
        etag = await store.put_part(key, upload_id, 1, body, crc64=CRC)
        part = Part(number=1, size=len(DATA), crc64=CRC, etag=etag, uploaded_at=0.0)
        await store.complete_upload(key, upload_id, [part], crc64=CRC)
        assert stub.uploads == {}
        assert stub.objects[key].data == DATA


async def test_an_object_of_the_right_size_is_no_proof_that_complete_worked(
    stub: StubS3, fd: int
) -> None:
    async with opened(stub, BLIND) as store:
        upload_id, parts = await send(store, fd)
        other = bytes(len(DATA))
        await store.put_object("k", other, content_type="a/b", metadata={}, crc64=crc64nvme(other))
        await store.abort_upload("k", upload_id)
        with pytest.raises(UploadGoneError):
            await store.complete_upload("k", upload_id, parts, crc64=CRC)


async def test_an_error_inside_of_a_success_is_an_error(stub: StubS3, fd: int) -> None:
    async with opened(stub) as store:
        upload_id, parts = await send(store, fd)
        stub.answer("CompleteMultipartUpload", *[Reply(200, "InternalError")] * 4)
        with pytest.raises(TransientError):
            await store.complete_upload("k", upload_id, parts, crc64=CRC)
        stub.answer("CompleteMultipartUpload", Reply(200, "InternalError"))
        await store.complete_upload("k", upload_id, parts, crc64=CRC)
        assert stub.objects["k"].data == DATA


@pytest.mark.parametrize("transfer", list(PartTransfer))
async def test_a_part_is_sent_again_when_the_server_stumbles(
    stub: StubS3, fd: int, transfer: PartTransfer
) -> None:
    stumbles = [Reply(500, "InternalError"), Reply(503, "SlowDown", is_early=True)]
    stub.answer("UploadPart", *stumbles, Reply(hangs_up=True))
    async with opened(stub, transfer=transfer) as store:
        await send(store, fd)
    assert stub.seen.count("UploadPart") == 4
    assert list(stub.uploads.values()) == [{1: DATA}]


@asynccontextmanager
async def endless(status: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A server whose bodies have 256 MiB, though it tells no length; and what it got rid of."""
    sent: list[int] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(headers={"ETag": '"e"'}, body=b"12345")
        reply = web.StreamResponse(status=status)
        await reply.prepare(request)
        with suppress(ConnectionError):
            for _ in range(256):
                await reply.write(bytes(MIB))
                sent.append(MIB)
        return reply

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", sent
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("status", "most"), [(206, 16 * MIB), (200, 96 * MIB)])
async def test_no_server_sends_more_than_fits(status: int, most: int) -> None:
    async with endless(status) as (url, sent):
        config = S3Config(endpoint_url=url, access_key="A", secret="S", bucket="b")
        async with open_s3_store(config, proof=AWS) as store:
            found = await store.find_object("k")
            reading = found.read(0, 5) if status == 206 else store.read("k")
            with pytest.raises(PermanentError, match="too many for one read"):
                await reading
    assert sum(sent) < most


@pytest.mark.parametrize(
    ("headers", "may_have_md5"),
    [
        ({}, True),
        ({"x-amz-server-side-encryption": "AES256"}, True),
        ({"x-amz-server-side-encryption": "aws:kms"}, False),
        ({"x-amz-server-side-encryption": "aws:kms:dsse"}, False),
        ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, False),
    ],
)
async def test_etags_of_what_is_encrypted_with_a_key_are_no_md5s(
    stub: StubS3, headers: dict[str, str], may_have_md5: bool
) -> None:
    async with opened(stub) as store:
        await store.put_object("k", b"x", content_type="", metadata={}, crc64=crc64nvme(b"x"))
        stub.objects["k"].headers.update(headers)
        stored = await store.head("k")
    assert stored is not None
    assert stored.may_have_md5 is may_have_md5


async def test_a_sick_store_shows_after_a_few_attempts(stub: StubS3) -> None:
    up = metrics.server_up.labels("s3")
    stub.answer("HeadObject", *[Reply(503, "SlowDown", {"Retry-After": "2"})] * 4)
    async with opened(stub) as store:
        with pytest.raises(ThrottledError):
            await store.head("k")
        assert up._value.get() == 0
        assert await store.head("k") is None
        assert up._value.get() == 1


async def test_a_start_does_not_wait_for_room(stub: StubS3) -> None:
    stub.answer("CreateMultipartUpload", *[Reply(507, "InsufficientStorage")] * 4)
    async with opened(stub) as store:
        await store.try_writing()
        assert S3.troubles == ["the disk of the S3 server is full"]
        await store.begin_upload("k", content_type="video/mp4", metadata={})
        assert S3.troubles == []


async def test_a_server_that_is_not_there(stub: StubS3, fd: int) -> None:
    async with opened(stub) as store:
        # aiohttp itself tries once more where a kept connection turns out to be dead
        stub.answer("UploadPart", *[Reply(hangs_up=True)] * 8)
        with pytest.raises(ServerUnreachableError) as caught:
            await send(store, fd)
    assert "Signature" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_a_server_that_refuses_presigned_requests_gets_others(stub: StubS3, fd: int) -> None:
    stub.traits = Traits(refuses_presigned=True)
    async with opened(stub) as store:
        await send(store, fd)
        await send(store, fd)
        assert "client" in repr(store)
    presigned = ["X-Amz-Signature" in r.query for r in stub.requests if r.method == "PUT"]
    assert presigned == [True, False, False]


async def test_secrets_stay_out_of_what_is_shown(stub: StubS3) -> None:
    config = S3Config(endpoint_url=stub.endpoint_url, access_key="A", secret="hidden", bucket="b")
    assert "hidden" not in repr(config)
    async with open_s3_store(config, proof=AWS) as store:
        assert "hidden" not in repr(store)
