"""What only a real server over a real wire shows."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from awscrt.checksums import combine_crc64nvme, crc64nvme
from tests.support.servers import SwiftServer

from cefmp4 import metrics
from cefmp4.config.ingest import PartTransfer
from cefmp4.errors import AccessDeniedError, BucketMissingError, ServerUnreachableError
from cefmp4.model.object import FileRange, PartProof, StoreProof
from cefmp4.model.part import MIN_PART_BYTES, Part
from cefmp4.retry import no_waiting
from cefmp4.storage.s3.probe import PROBE_PREFIX
from cefmp4.storage.s3.store import S3Config, S3Store, open_s3_store

pytestmark = pytest.mark.integration

COUNT = 4
SIZE = COUNT * MIN_PART_BYTES


def config_of(server: SwiftServer, bucket: str, **changes: object) -> S3Config:
    settings: dict[str, object] = {
        "endpoint_url": server.endpoint_url,
        "access_key": server.access_key,
        "secret": server.secret_key,
        "region": server.region,
        **changes,
    }
    return S3Config(bucket=bucket, **settings)  # type: ignore[arg-type]


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(os.urandom(SIZE))
    number = os.open(tmp_path / "file", os.O_RDONLY)
    yield number
    os.close(number)


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[SwiftServer]:
    server = SwiftServer(tmp_path / "own")
    await server.start()
    yield server
    await server.stop()


async def send(store: S3Store, upload_id: str, number: int, fd: int) -> Part:
    start = (number - 1) * MIN_PART_BYTES
    crc64 = crc64nvme(os.pread(fd, MIN_PART_BYTES, start))
    body = FileRange(fd, start, MIN_PART_BYTES)
    etag = await store.put_part("k", upload_id, number, body, crc64=crc64)
    return Part(number=number, size=MIN_PART_BYTES, crc64=crc64, etag=etag, uploaded_at=0.0)


def crc_of(parts: list[Part]) -> int:
    whole = 0
    for part in parts:
        whole = combine_crc64nvme(whole, part.crc64, part.size)
    return whole


async def test_what_swift_proves(s3_server: SwiftServer) -> None:
    async with open_s3_store(config_of(s3_server, await s3_server.new_bucket())) as store:
        assert store.proof == StoreProof(
            part=PartProof.CRC64NVME,
            full_object_crc=False,
            etag_is_md5=True,
            put_if_absent=True,
            complete_if_absent=True,
        )
        assert await store.list_uploads(PROBE_PREFIX) == []
        assert [found async for found in store.list_objects("")] == []


@pytest.mark.parametrize("part", list(PartProof))
@pytest.mark.parametrize("transfer", list(PartTransfer))
async def test_every_proof_and_way_on_the_wire(
    s3_server: SwiftServer, fd: int, part: PartProof, transfer: PartTransfer
) -> None:
    proof = StoreProof(part=part, full_object_crc=False, etag_is_md5=True)
    config = config_of(s3_server, await s3_server.new_bucket(), transfer=transfer)
    async with open_s3_store(config, proof=proof) as store:
        upload_id = await store.begin_upload("k", content_type="video/mp4", metadata={})
        numbers = range(1, COUNT + 1)
        parts = await asyncio.gather(*(send(store, upload_id, n, fd) for n in numbers))
        await store.complete_upload("k", upload_id, parts, crc64=crc_of(parts))
        assert await store.read("k") == os.pread(fd, SIZE, 0)
        assert "presigned" in repr(store) if transfer is PartTransfer.AUTO else "client"


async def test_an_upload_outlives_its_server(own_server: SwiftServer, fd: int) -> None:
    config = config_of(own_server, await own_server.new_bucket())
    async with open_s3_store(config) as store:
        upload_id = await store.begin_upload("k", content_type="video/mp4", metadata={})
        parts = [await send(store, upload_id, 1, fd), await send(store, upload_id, 3, fd)]
        await asyncio.to_thread(own_server.kill)
        with no_waiting(), pytest.raises(ServerUnreachableError):
            await send(store, upload_id, 2, fd)
        assert metrics.server_up.labels("s3")._value.get() == 0

        await own_server.start()
        listed = await store.list_parts("k", upload_id)
        assert [(part.number, part.etag) for part in listed] == [
            (part.number, part.etag) for part in parts
        ]
        parts = [parts[0], await send(store, upload_id, 2, fd), parts[1]]
        await store.complete_upload("k", upload_id, parts, crc64=crc_of(parts))
        assert await store.read("k") == os.pread(fd, SIZE * 3 // 4, 0)
        assert metrics.server_up.labels("s3")._value.get() == 1


async def test_what_an_operator_got_wrong_is_told(s3_server: SwiftServer) -> None:
    bucket = await s3_server.new_bucket()
    wrong = [
        (config_of(s3_server, bucket, secret="wrong"), AccessDeniedError, "S3_SECRET_ACCESS_KEY"),
        (config_of(s3_server, bucket, access_key="no:body"), AccessDeniedError, "S3_"),
        (config_of(s3_server, "no-such-bucket"), BucketMissingError, "S3_BUCKET_NAME"),
    ]
    for config, expected, hint in wrong:
        with pytest.raises(expected, match=hint):
            async with open_s3_store(config):
                pass
