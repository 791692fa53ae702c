"""Opens what one endpoint needs: aioboto3's client for the calls, and a sender of our own for the
bytes of parts, because only that one can leave a body to the kernel, or to OpenSSL."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aioboto3
from aiobotocore.config import AioConfig
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from cefmp4.config.ingest import PartTransfer
from cefmp4.config.settings import Settings
from cefmp4.storage.s3.calls import S3Calls
from cefmp4.storage.s3.part_transfer import BodyTransfer
from cefmp4.storage.s3.range_put import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
    STALL_TIMEOUT_S,
    RangeSender,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """`endpoint_url` None is AWS; no access key is the usual AWS credential chain."""

    bucket: str
    endpoint_url: str | None = None
    access_key: str | None = None
    secret: str | None = field(default=None, repr=False)
    region: str = "us-east-1"
    transfer: PartTransfer = PartTransfer.AUTO
    max_connections: int = 16  # of each of the two clients


def s3_config(settings: Settings, bucket: str) -> S3Config:
    """Of whatever bucket of our server."""
    secret = settings.s3_secret_access_key
    return S3Config(
        endpoint_url=settings.s3_endpoint_url,
        access_key=settings.s3_access_key_id,
        secret=secret.get_secret_value() if secret else None,
        bucket=bucket,
        region=settings.s3_region_name,
        transfer=settings.part_transfer,
        max_connections=settings.max_parts_in_flight + 16,
    )


@asynccontextmanager
async def connect(config: S3Config) -> AsyncIterator[tuple[S3Calls, BodyTransfer]]:
    # The variable that the client library looks at too: both must trust the same servers.
    ca_file = os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True)
    is_tls = (config.endpoint_url or "https").startswith("https")
    trusted = ssl.create_default_context(cafile=ca_file) if is_tls else None
    session = aioboto3.Session(
        aws_access_key_id=config.access_key,
        aws_secret_access_key=config.secret,
        region_name=config.region,
    )
    client_config = _client_config(config)
    async with session.client(
        "s3", endpoint_url=config.endpoint_url, verify=ca_file, config=client_config
    ) as client:
        by_client = config.transfer is PartTransfer.CLIENT or _has_proxy(client.meta.endpoint_url)
        with RangeSender(trusted, threads=config.max_connections) as sender:
            calls = S3Calls(client, config.bucket)
            yield calls, BodyTransfer(calls, None if by_client else sender)


def _client_config(config: S3Config) -> AioConfig:
    return AioConfig(
        signature_version="s3v4",
        # A custom endpoint is often an address or a name without a wildcard entry in DNS.
        s3={"addressing_style": "path" if config.endpoint_url else "auto"},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=STALL_TIMEOUT_S,
        retries={"total_max_attempts": 1, "mode": "standard"},  # cefmp4.retry is the one layer
        max_pool_connections=config.max_connections,
        # The default would hash every body with CRC-32 as well, and old servers refuse its trailer.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connector_args={"keepalive_timeout": KEEPALIVE_S},
    )


def _has_proxy(url: str) -> bool:
    """For that endpoint: the client library knows how to ask it."""
    return url.partition(":")[0] in get_environ_proxies(url)
