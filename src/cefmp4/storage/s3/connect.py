"""Opens the HTTP clients that one endpoint needs: aioboto3's for the calls, and one of our own for
the bytes of parts, because only that one can leave a body to the kernel, or to OpenSSL."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from cefmp4.config.ingest import PartTransfer
from cefmp4.storage.s3.file_body import STALL_TIMEOUT_S
from cefmp4.storage.s3.part_transfer import BodyTransfer
from cefmp4.storage.s3.tls_put import TlsSender

CONNECT_TIMEOUT_S = 5.0
_KEEPALIVE_S = 20.0


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
    ca_file: str | None = None  # PEM; None: what the client library trusts


@asynccontextmanager
async def connect(config: S3Config) -> AsyncIterator[tuple[Any, BodyTransfer]]:
    # The variable that the client library looks at too: both must trust the same servers.
    ca_file = config.ca_file or os.environ.get("AWS_CA_BUNDLE") or True
    bundle: Any = get_cert_path  # its stub knows no path, though that is what it is for
    is_tls = (config.endpoint_url or "https").startswith("https")
    trusted = ssl.create_default_context(cafile=bundle(ca_file)) if is_tls else None
    session = aioboto3.Session(
        aws_access_key_id=config.access_key,
        aws_secret_access_key=config.secret,
        region_name=config.region,
    )
    async with (
        session.client(
            "s3", endpoint_url=config.endpoint_url, verify=ca_file, config=_client_config(config)
        ) as client,
        _body_session(config, trusted) as http,
    ):
        proxy = _proxy_for(client.meta.endpoint_url)
        with _tls_sender(config, trusted) if trusted and not proxy else nullcontext() as tls:
            transfer = BodyTransfer(
                client, http, bucket=config.bucket, transfer=config.transfer, tls=tls, proxy=proxy
            )
            transfer.install()
            yield client, transfer


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
        connector_args={"keepalive_timeout": _KEEPALIVE_S},
    )


def _tls_sender(config: S3Config, trusted: ssl.SSLContext) -> TlsSender:
    return TlsSender(
        trusted,
        threads=config.max_connections,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        stall_timeout_s=STALL_TIMEOUT_S,
        keepalive_s=_KEEPALIVE_S,
    )


def _body_session(config: S3Config, trusted: ssl.SSLContext | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=config.max_connections, ssl=trusted or False, keepalive_timeout=_KEEPALIVE_S
        ),
        # No total: a part may be 5 GiB. The body watches its own progress, and the wait for the
        # reply begins when the last byte has left.
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=STALL_TIMEOUT_S
        ),
        skip_auto_headers={"Content-Type"},
        auto_decompress=False,
    )


def _proxy_for(url: str) -> str | None:
    """The proxy that the client library takes for the same endpoint."""
    proxy = get_environ_proxies(url).get(url.partition(":")[0])
    return str(proxy) if proxy else None
