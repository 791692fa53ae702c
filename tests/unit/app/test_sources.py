"""Which sources of jobs a process opens."""

import pytest

from cefmp4.app.sources import open_sources
from cefmp4.config.settings import Settings
from cefmp4.errors import ServerUnreachableError

SQS = Settings.model_validate(
    {
        "job_source_type": "sqs",
        "aws_sqs_queue_url": "http://127.0.0.1:1/1/jobs",
        "startup_timeout_seconds": 0,
    }
)


async def test_a_worker_that_asks_no_source_needs_no_queue() -> None:
    async with open_sources(SQS, will_ask=False) as sources:
        assert sources == []


async def test_whoever_asks_it_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(ServerUnreachableError, match="AWS_SQS_QUEUE_URL"):
        await _opened()


async def _opened() -> None:
    async with open_sources(SQS, will_ask=True):
        pass
