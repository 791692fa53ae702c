"""AWS_S3_BUCKET and S3_PREFIX: each result document lies there, too."""

import json
from typing import Any

import pytest
from pydantic import SecretStr
from tests.support.servers import SwiftServer

from cefmp4.app.results import open_results
from cefmp4.config.settings import Settings
from cefmp4.errors import SettingsError
from cefmp4.model.job import JobInput, JobKind
from cefmp4.ports.results import JobResult
from cefmp4.storage.s3.store import open_s3_store

pytestmark = pytest.mark.integration

RESULT = JobResult(
    job_id="s-hls",
    kind=JobKind.HLS,
    subject="s",
    source=JobInput(bucket="b", key="a.mp4"),
    attempt="a1",
    accepted_at=7.0,
    document={"tier": "copy"},
)


def settings_of(server: SwiftServer, bucket: str, **changes: Any) -> Settings:
    config = server.config(bucket)
    return Settings(
        s3_endpoint_url=config.endpoint_url,
        s3_access_key_id=config.access_key,
        s3_secret_access_key=SecretStr(config.secret or ""),
        s3_bucket_name=bucket,
        startup_timeout_seconds=5,
        **changes,
    )


@pytest.mark.parametrize("is_elsewhere", [True, False])
async def test_the_document_is_in_both_places(is_elsewhere: bool, s3_server: SwiftServer) -> None:
    bucket = await s3_server.new_bucket()
    other = await s3_server.new_bucket() if is_elsewhere else bucket
    changes = {"aws_s3_bucket": other} if is_elsewhere else {}
    settings = settings_of(s3_server, bucket, s3_prefix="/results/", **changes)
    async with (
        open_s3_store(s3_server.config(bucket)) as store,
        open_s3_store(s3_server.config(other)) as copies,
    ):
        async with open_results(settings, store) as stores:
            told = [await one.keep(RESULT) for one in stores]
        assert told == [
            f"s3://{other}/results/hls/s/result.json",
            f"s3://{bucket}/hls/s/result.json",
        ]
        expected = {"tier": "copy", "attempt": "a1", "accepted_at": 7.0}
        assert json.loads(await copies.read("results/hls/s/result.json")) == expected
        assert json.loads(await store.read("hls/s/result.json")) == expected


async def test_a_bucket_that_is_not_there_is_named(s3_server: SwiftServer) -> None:
    bucket = await s3_server.new_bucket()
    settings = settings_of(s3_server, bucket, aws_s3_bucket="no-such-bucket")
    async with open_s3_store(s3_server.config(bucket)) as store:
        with pytest.raises(SettingsError, match="AWS_S3_BUCKET=no-such-bucket"):
            async with open_results(settings, store):
                pass
