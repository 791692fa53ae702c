"""A plain S3 client that asks a server itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from tests.support.servers import SwiftServer


@asynccontextmanager
async def open_client(server: SwiftServer) -> AsyncIterator[Any]:
    session = aioboto3.Session(
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
    )
    config = AioConfig(s3={"addressing_style": "path"}, retries={"max_attempts": 5})
    async with session.client("s3", endpoint_url=server.endpoint_url, config=config) as client:
        yield client
