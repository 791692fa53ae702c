import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.stub_s3 import Reply, StubS3, Traits

from cefmp4.errors import AccessDeniedError, BucketMissingError, CefError, PermanentError
from cefmp4.model.object import PartProof, StoreProof
from cefmp4.retry import no_waiting
from cefmp4.storage.s3.store import S3Config, open_s3_store


@asynccontextmanager
async def probed(stub: StubS3) -> AsyncIterator[StoreProof]:
    config = S3Config(endpoint_url=stub.endpoint_url, access_key="a", secret="s", bucket="b")
    async with open_s3_store(config) as store:
        yield store.proof


def proof(
    part: PartProof,
    *,
    whole: bool,
    md5: bool = True,
    put: bool = True,
    complete: bool = True,
    metadata: bool = True,
) -> StoreProof:
    return StoreProof(
        part=part,
        full_object_crc=whole,
        etag_is_md5=md5,
        put_if_absent=put,
        complete_if_absent=complete,
        keeps_metadata=metadata,
    )


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        (Traits(), proof(PartProof.CRC64NVME, whole=True)),
        (Traits(etag_is_md5=False), proof(PartProof.CRC64NVME, whole=True, md5=False)),
        (Traits(checks_whole=False), proof(PartProof.CRC64NVME, whole=False)),
        (
            Traits(checks_whole=False, takes_crc_for_request=True),
            proof(PartProof.CRC64NVME, whole=False),
        ),
        (Traits(checks_crc=False), proof(PartProof.CONTENT_MD5, whole=False)),
        (Traits(knows_crc_header=False), proof(PartProof.CONTENT_MD5, whole=False)),
        (Traits(checks_crc=False, checks_md5=False), proof(PartProof.ETAG, whole=False)),
        (Traits(minds_absent=False), proof(PartProof.CRC64NVME, whole=True, complete=False)),
        (Traits(knows_absent=False), proof(PartProof.CRC64NVME, whole=True, put=False)),
        (Traits(keeps_metadata=False), proof(PartProof.CRC64NVME, whole=True, metadata=False)),
    ],
    ids=str,
)
async def test_it_believes_what_it_sees(traits: Traits, expected: StoreProof) -> None:
    async with StubS3(traits).running() as stub, probed(stub) as found:
        assert found == expected
        assert not stub.uploads
        assert not stub.objects


async def test_a_store_that_proves_nothing_is_refused() -> None:
    traits = Traits(checks_crc=False, checks_md5=False, etag_is_md5=False)
    async with StubS3(traits).running() as stub:
        with pytest.raises(PermanentError, match="could be proven"):
            async with probed(stub):
                pass
        assert not stub.uploads


@pytest.mark.parametrize(
    "traits",
    [
        Traits(replaces_parts=False),
        Traits(keeps_first_part=True),
        Traits(ends_upload_at_bad_part=True),
    ],
    ids=str,
)
async def test_a_store_that_cannot_replace_a_part_is_refused(traits: Traits) -> None:
    """Else it would show with the first recorder that goes back, as a stream that fails."""
    async with StubS3(traits).running() as stub:
        with pytest.raises(PermanentError, match=r"of a part|replace|one refused part"):
            async with probed(stub):
                pass
        assert not stub.uploads
        assert not stub.objects


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(404, "NoSuchBucket", BucketMissingError), (403, "AccessDenied", AccessDeniedError)],
)
async def test_what_is_no_answer_to_the_question_comes_out(
    status: int, code: str, expected: type[CefError]
) -> None:
    async with StubS3().running() as stub:
        stub.answer("CreateMultipartUpload", Reply(status, code))
        with pytest.raises(expected):
            async with probed(stub):
                pass


async def test_nothing_goes_on_where_it_was_refused() -> None:
    """It would open a connection of a client that is closed by then, which nobody closes."""
    async with StubS3().running() as stub:
        stub.answer("CreateMultipartUpload", Reply(403, "AccessDenied"))
        stub.answer("ListMultipartUploads", *[Reply(503, "SlowDown")] * 3)
        with pytest.raises(AccessDeniedError):
            async with probed(stub):
                pass
        assert not [task for task in asyncio.all_tasks() if "leftovers" in repr(task)]


async def test_a_sick_server_is_no_proof_of_anything() -> None:
    """Else a 503 at the wrong moment would pass for a refused checksum."""
    async with StubS3().running() as stub:
        stub.answer("UploadPart", *[Reply(503, "SlowDown")] * 3)
        with no_waiting():
            async with probed(stub) as found:
                assert found == proof(PartProof.CRC64NVME, whole=True)


async def test_a_remembered_proof_asks_nothing() -> None:
    known = proof(PartProof.ETAG, whole=False)
    async with StubS3().running() as stub:
        config = S3Config(endpoint_url=stub.endpoint_url, access_key="a", secret="s", bucket="b")
        async with open_s3_store(config, proof=known) as store:
            assert store.proof == known
        assert stub.seen == []
